"""Hosts whose kernel is a model, in virtual time."""
