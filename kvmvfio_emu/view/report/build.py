"""Making the page: the trace as data in it, the counters as a table, and a policy that lets nothing else run or load.

Strings of a trace reach the page in two ways only: as JSON in a data block, with every character escaped that could
end it, and through the template's escaping.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from kvmvfio_emu import __version__
from kvmvfio_emu.kernel.errors import KvmVfioEmuError
from kvmvfio_emu.view.actors import ACTORS
from kvmvfio_emu.view.report.counters import groups
from kvmvfio_emu.view.report.window import OTHER, Part, Run

#: The program in the page, in the order in which its parts need each other.
SCRIPTS = ("model.js", "dom.js", "sequence.js", "panels.js", "scrub.js", "app.js", "keys.js")
_COLOPHON = (
    "The counters are counted by the model, event by event. Times are virtual, in the model's nanoseconds: only their "
    "order means something. Steps of two runs are aligned by their names between two rises of the device's line."
)


class ReportError(KvmVfioEmuError):
    """A page that cannot be made: nothing to show, or something missing to make it with."""


def page(part: Part) -> str:
    """The whole page, for one or more runs. `ReportError` when there is no event in them."""
    runs = [run for run in part.runs if run.kept]
    if not runs:
        raise ReportError(_nothing(part))
    shown = [runs[number] for number in pair(runs)]
    script, style = "\n".join(_text(name) for name in SCRIPTS), _text("report.css")
    markup, template = _template()
    return str(
        template.render(
            policy=f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; "
            "base-uri 'none'; form-action 'none'",
            version=__version__,
            title="One interrupt, step by step" if len(shown) == 1 else "Two ways of an interrupt, step by step",
            subtitle=_subtitle(runs),
            notes=_notes(part),
            lead=_lead(shown),
            columns=[run.title for run in shown],
            compared=len(shown) == 2,
            groups=groups([run.counts for run in shown]),
            colophon=_COLOPHON,
            # These three are ours, or made safe here.
            style=markup(style),
            script=markup(script),
            data=markup(embed({"runs": [encode(run) for run in runs], "lanes": lanes(runs), "pair": pair(runs)})),
        )
    )


def _nothing(part: Part) -> str:
    outside = sum(run.outside for run in part.runs)
    if outside:
        return f"none of the trace's {outside:,} events is in the part that was asked for"
    return "the trace has no events"


def embed(data: Any) -> str:
    """JSON for a script element: valid everywhere, and without a character that HTML gives a meaning."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


class _Table:
    """Values that occur often, each written once."""

    def __init__(self, first: Any) -> None:
        self.values: list[Any] = []
        self._index: dict[str, int] = {}
        self.add(first)

    def add(self, value: Any) -> int:
        """The place of ``value``."""
        key = json.dumps(value)
        if key not in self._index:
            self._index[key] = len(self.values)
            self.values.append(value)
        return self._index[key]


def encode(run: Run) -> dict[str, Any]:
    """A run as columns of small numbers; what they mean is in model.js."""
    kinds, texts, fields, deltas = _Table(["", ""]), _Table(""), _Table(None), _Table(None)
    columns: dict[str, list[int]] = {name: [] for name in ("kind", "text", "field", "delta", "number", "time", "back")}
    number = time = 0
    for step in run.steps():
        columns["kind"].append(kinds.add([step.name, step.actor]))
        columns["text"].append(texts.add(step.text))
        columns["field"].append(fields.add(step.fields) if step.fields else 0)
        columns["delta"].append(deltas.add(step.state) if step.state else 0)
        columns["number"].append(step.number - number)
        columns["time"].append(step.time - time)
        columns["back"].append(step.number - step.cause if step.cause > 0 else 0)
        number, time = step.number, step.time
    return {
        "title": run.title,
        "header": {key: run.header.get(key) for key in ("profile", "machine", "gic")},
        "missing": run.missing(),
        "gap": run.gap,
        "paths": len(run.paths),
        "kinds": kinds.values,
        "texts": texts.values,
        "fields": fields.values,
        "deltas": deltas.values,
        **columns,
    }


def lanes(runs: Sequence[Run]) -> list[str]:
    """Who acts in them, in the order of the lanes."""
    acting = {step.actor for run in runs for step in run.steps()}
    strangers = sorted(acting - {*ACTORS, OTHER})
    return [*(name for name in ACTORS if name in acting), *strangers, *([OTHER] if OTHER in acting else [])]


def pair(runs: Sequence[Run]) -> list[int]:
    """Which runs to show first: both modes, if there are both; else the first two; else the one."""
    modes = [run.header.get("mode") for run in runs]
    if "unforwarded" in modes and "forwarded" in modes:
        return [modes.index("unforwarded"), modes.index("forwarded")]
    return list(range(min(2, len(runs))))


def _subtitle(runs: Sequence[Run]) -> str:
    header = runs[0].header
    told = [f"kernel {header['profile']}" if header.get("profile") else "", str(header.get("machine") or "")]
    total = sum(run.total for run in runs)
    return ", ".join([*(part for part in told if part), f"{total:,} steps in {len(runs)} run{'s' * (len(runs) > 1)}"])


def _notes(part: Part) -> list[str]:
    return [f"{part.more:,} further runs of the trace are not in this page."] if part.more else []


def _lead(shown: Sequence[Run]) -> str:
    if len(shown) == 1:
        return "Every event of the run, counted, those included that are not among the steps above."
    return "The same work, done twice. Where the two differ, the last column but one says by how much."


def _text(name: str) -> str:
    return (files(__package__) / "page" / name).read_text("utf-8")


def _hash(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"


def _template() -> tuple[Any, Any]:
    """(what marks text as safe, the template). jinja2 is an extra: without it `ReportError` says what to install."""
    try:
        from jinja2 import Environment, StrictUndefined
        from markupsafe import Markup
    except ImportError:
        raise ReportError("a report needs jinja2: pip install 'kvmvfio-emu[report]'") from None
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return Markup, environment.from_string(_text("page.html.j2"))


def write(text: str, path: str) -> int:
    """Write a page or a picture; returns its size in bytes. Characters that are none become U+FFFD. `ReportError`."""
    data = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()
    try:
        with open(path, "wb") as file:
            return file.write(data)
    except OSError as error:
        raise ReportError(f"{path}: {error.strerror}") from None
