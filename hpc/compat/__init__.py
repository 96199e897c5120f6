"""For code that was written for the ancestors: `ipython1` (2006) and `ipyparallel`. Each is a thin layer over `hpc`."""
