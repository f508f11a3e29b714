"""Would huge pages of each size be used on this host, and what would they cost: looked up, nothing changed."""
