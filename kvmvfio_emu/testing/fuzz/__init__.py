"""`kvmvfio-emu fuzz`: sequences that Hypothesis draws, on two kernels; the first difference, shrunk, and told why."""
