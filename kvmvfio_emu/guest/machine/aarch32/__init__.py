"""A guest in the 32-bit execution state: every mode of PL1, and PL0."""
