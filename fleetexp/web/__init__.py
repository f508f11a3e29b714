"""The live view: read-only web pages over a store, for looking at runs while they go on.

May import what drives runs, and the store; it only reads.
"""
