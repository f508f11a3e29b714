"""One module for each group of scenarios; `agents.conformance.registry` lists them."""
