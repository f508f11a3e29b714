"""What drives a run: decided, carried out, written down. May import fleets, store, experiment, analysis, agents."""
