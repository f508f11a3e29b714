"""Guests of this machine as a small fleet: a kernel is tried here before any server sees it."""
