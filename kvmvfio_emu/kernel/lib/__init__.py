"""Data structures that the kernel rooms share; models the kernel's ``lib/``."""
