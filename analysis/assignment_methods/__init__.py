"""Ways to draw the arms of a parallel design, one a module: each declares an `AssignmentMethod` at its top."""
