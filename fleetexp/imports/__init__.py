"""Measurements that somebody brings: read as a stream, checked cell by cell, summed up by period, entered as a run."""
