"""Metrics of the user's own: read from an address, a command or a file, each in a thread of its own beside the samples.

What they say is understood in a process of its own: no page makes anyone wait. A place that does not answer, or answers
what is not a number, gives no value: missing is missing, never 0.
"""
