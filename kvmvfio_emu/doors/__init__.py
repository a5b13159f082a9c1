"""The ways into an emulated kernel. A door knows callers and descriptors; the kernel behind it knows neither."""
