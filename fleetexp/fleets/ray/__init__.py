"""Hosts of a Ray cluster, each with an agent pinned to its node."""
