"""The directive that runs `kvmvfio-emu tcp-rr` while the pages are built, so that they show what the code says today.

::

    ```{kvmvfio-tcp-rr} --vcpu running
    :show: picture
    ```

``show``: ``picture`` (SVG, as part of the page) or ``text`` (what the command prints; the default).
"""

from __future__ import annotations

import functools
import shlex
from typing import ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from kvmvfio_emu.cli import tcp_rr
from kvmvfio_emu.cli.main import parser
from kvmvfio_emu.rr import plot, report
from kvmvfio_emu.rr.sweep import Answer, Swing, Variant


@functools.cache
def _asked(arguments: str) -> tuple[Answer, list[Swing], list[Variant]]:
    return tcp_rr.ask(parser(["tcp-rr"]).parse_args(["tcp-rr", *shlex.split(arguments)]))


def _show(argument: str) -> str:
    return directives.choice(argument, ("picture", "text"))


class TcpRr(SphinxDirective):
    """What the command answers to these arguments."""

    optional_arguments = 1
    final_argument_whitespace = True
    option_spec: ClassVar = {"show": _show}

    def run(self) -> list[nodes.Node]:
        self.env.note_reread()  # the page changes when the code does
        arguments = self.arguments[0] if self.arguments else ""
        answer, swings, variants = _asked(arguments)
        if self.options.get("show", "text") == "text":
            text = f"$ kvmvfio-emu tcp-rr {arguments}".rstrip() + "\n" + report.text(answer, swings, variants)
            return [nodes.literal_block(text, text, language="text")]
        picture = plot.picture(answer, swings, alone=False)
        figure = nodes.raw("", f"<figure>{picture}</figure>", format="html")
        said = nodes.paragraph("", report.sentence(answer) + " Computed, not measured on hardware.")
        return [figure, said]


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("kvmvfio-tcp-rr", TcpRr)
    return {"parallel_read_safe": True}
