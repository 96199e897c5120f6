"""The group: which launcher started this process, and the communicator that its ranks share.

``launch`` reads the environment and needs no MPI; ``group`` and ``collectives`` import mpi4py when they are used;
``operations`` are what a reduction does; ``diagnosis`` writes what people read when launcher and library do not belong
together.
"""
