"""Ways to look at a kernel: its state, decoded, as data and for people."""
