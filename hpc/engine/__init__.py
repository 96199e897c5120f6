"""One process that runs work: its main thread takes tasks and runs them, a second thread stays responsive meanwhile.

``start`` puts the parts together, ``loop`` is the main thread, ``control`` the other one. What both touch is in
``ledger`` (which tasks have begun, which results wait), ``capture`` (what tasks print) and ``interrupts`` (signals).
"""
