"""The hosts of a run, wherever they are: in this process, on this machine, over Ray, or simulated.

May import agents, experiment, and the store to see which hosts are free.
"""
