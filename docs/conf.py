"""Sphinx configuration."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

import kvmvfio_emu

project = "kvmvfio-emu"
author = "The kvmvfio-emu authors"
project_copyright = author
version = release = kvmvfio_emu.__version__

extensions = [
    "sphinx.ext.autodoc",
    "myst_parser",
    "kvmvfio_emu_reference",
    "kvmvfio_emu_files",
    "kvmvfio_emu_man",
    "kvmvfio_emu_pictures",
    "kvmvfio_emu_rr",
]
html_static_path = ["_static"]
exclude_patterns = ["_build", "_ext"]
html_theme = "furo"
html_title = "kvmvfio-emu"
html_copy_source = False

default_role = "py:obj"  # the docstrings' single backquotes
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
toc_object_entries_show_parents = "hide"
myst_heading_anchors = 3

man_pages = [("man", "kvmvfio-emu", "emulated KVM and VFIO kernel API, with IRQ forward control", author, 1)]
