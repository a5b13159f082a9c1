"""Entries for coverage-guided fuzzing, and the inputs that are kept: `tox -e fuzz`; the suite runs what is kept."""
