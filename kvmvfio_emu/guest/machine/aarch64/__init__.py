"""A guest in the 64-bit execution state, at EL1 and EL0."""
