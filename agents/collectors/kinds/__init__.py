"""Collectors that read files of their own, one module each: its metrics and how they are read (docs/EXTENDING.md).

What stands in /proc/vmstat, /proc/meminfo or a cgroup's files is a row of `agents/catalogue/table.py` instead.
"""
