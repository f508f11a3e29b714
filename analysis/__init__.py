"""Statistics of a rollout: from observations per host and period to effects, guardrails and a decision."""
