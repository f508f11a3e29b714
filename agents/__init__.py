"""What runs on a host: knobs, guardian, collectors and workloads. Standard library, plus Ray in `actor.py` only."""
