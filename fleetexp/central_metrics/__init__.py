"""A client of Prometheus' HTTP API, for the orchestrator: it asks, agents never do."""
