"""A rollout already made: hosts were changed, nobody drew which. What that bears is a verdict, never a decision.

Nothing in here imports `analysis.decision`, and an import contract keeps it so.
"""
