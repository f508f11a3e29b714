"""Places that metrics of the user's own are read from, one module each (docs/EXTENDING.md).

Addresses and commands stand in `agents/metric_sources/reading.py`: more than one key of a spec is theirs.
"""
