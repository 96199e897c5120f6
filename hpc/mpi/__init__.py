"""The group: which launcher started this process, and the communicator that its ranks share.

``launch`` reads the environment and needs no MPI; ``group`` is the only module of the package that imports mpi4py;
``diagnosis`` writes what people read when launcher and library do not belong together.
"""
