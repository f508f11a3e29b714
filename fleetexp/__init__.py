"""The orchestrator, the SQL store and the command line of fleetexp."""
