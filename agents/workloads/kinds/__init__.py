"""The workloads that there are, one module each: options, what is measured, and how it runs (docs/EXTENDING.md).

Every host process imports these modules to know the options, so what is heavy (numpy, numba) is imported where it runs.
"""
