"""Whether the emulated kernels answer as real ones do: recorded answers, the program that asks, the comparison."""
