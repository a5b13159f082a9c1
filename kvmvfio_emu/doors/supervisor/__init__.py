"""The door for unmodified programs: seccomp user notification, one thread, one event loop, no privileges."""
