"""Questions in SQL that cannot write, whatever they say."""
