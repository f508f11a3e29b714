"""Does a huge page size behave on this kernel? Scenarios, each in a process of its own, with a verdict for each."""
