"""What the directives that write the reference share: a page's Markdown, made from the code when the page is built."""

from __future__ import annotations

import inspect
import re
from typing import Any

from docutils import nodes
from sphinx.util.docutils import SphinxDirective


class Written(SphinxDirective):
    """A directive whose content `markdown` returns."""

    def run(self) -> list[nodes.Node]:
        self.env.note_reread()  # the page changes when the code does
        return self.parse_text_to_nodes(self.markdown(), allow_section_headings=True)

    def markdown(self) -> str:
        raise NotImplementedError


def docstring(documented: Any) -> str:
    """A docstring as Markdown."""
    text = inspect.getdoc(documented) or ""
    text = re.sub(r"``([^`]+)``", r"`\1`", text)
    return re.sub(r"^(\d+)\.", r"\1\\.", text)  # else Markdown takes it for a list
