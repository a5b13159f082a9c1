"""The answer as a picture: the cycles of a transaction in both modes, then how each cost moves the answer (tornado)."""

from __future__ import annotations

from collections.abc import Callable

from kvmvfio_emu.rr import report
from kvmvfio_emu.rr.measure import Measured
from kvmvfio_emu.rr.svg import BLUE, ORANGE, Drawing
from kvmvfio_emu.rr.sweep import Answer, Swing, cheaper, faster

_WIDTH, _LEFT, _RIGHT, _ROW = 720, 190, 70, 24
#: So many parameters are drawn; the others move the answer less.
_SHOWN = 10


def picture(answer: Answer, swings: list[Swing], *, alone: bool = True) -> str:
    """SVG text. ``alone``: for a file of its own, else for a page. Without ``swings`` there are only the cycles."""
    drawing = Drawing(_WIDTH)
    y = _cycles(drawing, answer)
    if swings:
        y = _tornado(drawing, y, "More transactions a second by forwarding, %", answer, swings, faster)
        y = _tornado(drawing, y, "Fewer CPU cycles a transaction by forwarding, %", answer, swings, cheaper)
        drawing.text(0, y - 10, "* assumed; the others were published, recalled, or derived from such figures", size=12)
    title = "What forwarding buys, by the model's steps and assumed costs; not measured on hardware"
    return drawing.svg(title, report.sentence(answer), alone=alone)


def _cycles(drawing: Drawing, answer: Answer) -> float:
    drawing.text(0, 16, "CPU cycles a transaction (computed, not measured)", bold=True)
    modes = (("not forwarded", answer.unforwarded), ("forwarded", answer.forwarded))
    scale = (_WIDTH - _LEFT - _RIGHT) / (max(measured.cycles for _, measured in modes) or 1)
    y = 28.0
    for name, measured in modes:
        _bar(drawing, y, name, measured, scale)
        y += _ROW
    drawing.box(_LEFT, y + 4, 12, 12, BLUE)
    drawing.text(_LEFT + 18, y + 15, "before the response, which waits for it")
    drawing.box(_LEFT + 290, y + 4, 12, 12, ORANGE)
    drawing.text(_LEFT + 308, y + 15, "after it")
    return y + 44


def _bar(drawing: Drawing, y: float, name: str, measured: Measured, scale: float) -> None:
    critical, rest = measured.critical_cycles, measured.cycles - measured.critical_cycles
    drawing.text(_LEFT - 10, y + 14, name, anchor="end")
    drawing.box(_LEFT, y, critical * scale, _ROW - 6, BLUE, f"{name}: {critical:,.0f} cycles before the response")
    drawing.box(_LEFT + critical * scale, y, rest * scale, _ROW - 6, ORANGE, f"{name}: {rest:,.0f} cycles after it")
    drawing.text(_LEFT + measured.cycles * scale + 6, y + 14, f"{measured.cycles:,.0f}")


def _tornado(
    drawing: Drawing, y: float, title: str, answer: Answer, swings: list[Swing], of: Callable[[Answer], float]
) -> float:
    shown = sorted(swings, key=lambda swing: (-round(swing.width(of), 9), swing.parameter.name))[:_SHOWN]
    values = [of(end) * 100 for swing in shown for end in (swing.low, swing.high)]
    base = of(answer) * 100
    low, high = min(0.0, base, *values), max(0.0, base, *values)
    left, right = _LEFT + 44, _WIDTH - _RIGHT
    scale = (right - left) / ((high - low) or 1)

    def at(value: float) -> float:
        return left + (value - low) * scale

    drawing.text(0, y, title, bold=True)
    top = y + 12
    for number, swing in enumerate(shown):
        _swing(drawing, top + number * _ROW, swing, of, base, at)
    bottom = top + len(shown) * _ROW
    for value in (0.0, base):
        drawing.line(at(value), top - 4, at(value), bottom)
        drawing.text(at(value), bottom + 14, f"{value:.1f}", anchor="middle", size=12)
    drawing.box(_LEFT, bottom + 24, 12, 12, BLUE)
    drawing.text(_LEFT + 18, bottom + 35, "cost at its lowest")
    drawing.box(_LEFT + 160, bottom + 24, 12, 12, ORANGE)
    drawing.text(_LEFT + 178, bottom + 35, "at its highest, the others as given")
    return bottom + 66


def _swing(
    drawing: Drawing,
    y: float,
    swing: Swing,
    of: Callable[[Answer], float],
    base: float,
    at: Callable[[float], float],
) -> None:
    one = swing.parameter
    drawing.text(_LEFT - 10, y + 14, f"{one.name} {'*' if one.basis == 'assumed' else ''}".strip(), anchor="end")
    ends = ((swing.low, one.low, BLUE), (swing.high, one.high, ORANGE))
    # The longer bar first, so that both show where they lie on the same side.
    for end, cost, colour in sorted(ends, key=lambda entry: -abs(of(entry[0]) * 100 - base)):
        value = of(end) * 100
        hint = f"{one.name} {cost:g} {one.unit}: {value:+.1f} %"
        drawing.box(min(at(value), at(base)), y, abs(at(value) - at(base)), _ROW - 6, colour, hint)
    values = sorted(of(end) * 100 for end in (swing.low, swing.high))
    drawing.text(min(at(values[0]), at(base)) - 4, y + 14, f"{values[0]:.1f}", anchor="end", size=12)
    drawing.text(max(at(values[1]), at(base)) + 4, y + 14, f"{values[1]:.1f}", size=12)
