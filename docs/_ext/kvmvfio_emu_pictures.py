"""The directive ``{kvmvfio-timeline} unforwarded`` or ``forwarded``: one interrupt of the demo, run now, as a picture.

``:at: NAME`` marks the event of that name, with its causes and effects; the directive's content is the caption.
"""

from __future__ import annotations

from typing import Any, ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from kvmvfio_emu import Kernel, uapi
from kvmvfio_emu.cli.story import DEVICE, Vmm
from kvmvfio_emu.view.timeline import timeline_svg

#: The columns of state: the physical interrupt, the host's disable depth, the list register.
_WATCH = {"GIC": "gic.112.state", "enabled": "gic.112.enabled", "list register": "lr.0.0.0"}


def one_interrupt(*, forward: bool) -> list[dict[str, Any]]:
    """The records of one interrupt, from the device's line to the guest's return to the VMM."""
    records: list[dict[str, Any]] = []
    with Kernel() as kernel:
        vmm = Vmm(kernel, forward=forward)
        kernel.ioctl(vmm.vcpu, uapi.KVM_RUN)
        stop = kernel.trace(records.append, ["!%ioctl"], state=True)
        kernel.after(5000, kernel.device(DEVICE).raise_interrupt)  # type: ignore[attr-defined]
        kernel.ioctl(vmm.vcpu, uapi.KVM_RUN)
        stop()
    return records


class Timeline(SphinxDirective):
    """See the module."""

    required_arguments = 1
    has_content = True
    option_spec: ClassVar[dict[str, Any]] = {"at": directives.unchanged}

    def run(self) -> list[nodes.Node]:
        """A figure in HTML; other builders have the text around it."""
        self.env.note_reread()  # it shows what the code does now
        mode = directives.choice(self.arguments[0], ("unforwarded", "forwarded"))
        records = one_interrupt(forward=mode == "forwarded")
        wanted = self.options.get("at")
        at = next(record["n"] for record in records if record.get("name") == wanted) if wanted else None
        ident = f"timeline-{self.env.new_serialno('timeline')}"
        svg = timeline_svg(records, at=at, title=f"One interrupt, {mode}", watch=_WATCH, ident=ident)
        figure = nodes.container(classes=["kvmvfio-figure"])
        figure += nodes.raw("", f'<div class="kvmvfio-scroll" tabindex="0" role="group">{svg}</div>', format="html")
        figure += self.parse_content_to_nodes()
        return [figure]


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("kvmvfio-timeline", Timeline)
    app.add_css_file("pictures.css")
    return {"parallel_read_safe": True}
