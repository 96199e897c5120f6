"""The controller: a brain that decides (events in, actions out) and a server that owns the sockets.

``brain`` and what it is made of (``bundles``, ``engines``, ``balance``, ``pools``, ``queues``, ``membership``, ...)
know neither socket nor clock; ``server`` and its helpers do the I/O.
"""
