"""A drawing as SVG text: rectangles, lines, labels. Colours suit light and dark pages; text takes the page's colour."""

from __future__ import annotations

from html import escape

BLUE, ORANGE, GREY = "#3f86c6", "#d5802b", "#8a8a8a"
_FONT = "font-family='system-ui, sans-serif' font-size='13'"


class Drawing:
    """``width`` units wide; grows in height with what is drawn."""

    def __init__(self, width: int) -> None:
        self.width = width
        self.height = 0.0
        self._parts: list[str] = []

    def box(self, x: float, y: float, width: float, height: float, colour: str, hint: str = "") -> None:
        """A filled rectangle; ``hint`` is shown to a pointer and read by a screen reader."""
        title = f"<title>{escape(hint)}</title>" if hint else ""
        place = f"x='{x:.1f}' y='{y:.1f}' width='{max(width, 0):.1f}' height='{height:.1f}'"
        self._parts.append(f"<rect {place} fill='{colour}'>{title}</rect>")
        self._grow(y + height)

    def line(self, x1: float, y1: float, x2: float, y2: float, colour: str = GREY) -> None:
        """A thin line."""
        place = f"x1='{x1:.1f}' y1='{y1:.1f}' x2='{x2:.1f}' y2='{y2:.1f}'"
        self._parts.append(f"<line {place} stroke='{colour}' stroke-width='1'/>")
        self._grow(max(y1, y2))

    def text(self, x: float, y: float, text: str, *, anchor: str = "start", bold: bool = False, size: int = 13) -> None:
        """A label; ``y`` is its base line."""
        style = f"text-anchor='{anchor}' font-size='{size}'" + (" font-weight='600'" if bold else "")
        self._parts.append(f"<text x='{x:.1f}' y='{y:.1f}' {style} fill='currentColor'>{escape(text)}</text>")
        self._grow(y + 4)

    def svg(self, title: str, description: str, *, alone: bool = True) -> str:
        """The whole. ``alone``: a file of its own, which must choose a text colour; else it is part of a page."""
        style = "<style>:root{color:#222}@media(prefers-color-scheme:dark){:root{color:#ddd}}</style>" if alone else ""
        head = (
            f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {self.width} {self.height + 8:.0f}' role='img' "
            f"aria-label='{escape(title)}' style='max-width:{self.width}px;width:100%' {_FONT}>"
        )
        body = "\n".join(self._parts)
        return f"{head}{style}<title>{escape(title)}</title><desc>{escape(description)}</desc>\n{body}\n</svg>\n"

    def _grow(self, y: float) -> None:
        self.height = max(self.height, y)
