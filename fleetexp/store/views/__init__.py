"""The views of the store: one for each question people ask of it."""
