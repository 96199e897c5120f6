"""What keeps a cluster from working here, and what to do about it: the checks of ``ipcluster doctor``.

Each check returns a `Finding`; `examine` makes them in the order in which one failure explains the next.
"""
