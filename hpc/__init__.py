"""Interactive parallel Python for MPI clusters."""
