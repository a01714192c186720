"""Two kinds of plots as SVG text: bars side by side, and lines over a logarithmic axis."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

WIDTH, MARGIN, BAR, GAP = 640, 150, 20, 6
COLOURS = ("#2b6cb0", "#dd6b20", "#2f855a", "#805ad5", "#b83280", "#718096", "#975a16", "#285e61")
_STYLE = 'font-family="sans-serif" font-size="12" fill="#1a202c"'


def _svg(height: float, body: Sequence[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}" width="{WIDTH}" height="{height:g}">'
    )
    background = f'<rect width="{WIDTH}" height="{height:g}" fill="white"/>'
    return "\n".join([head, background, *body, "</svg>", ""])


def _text(x: float, y: float, text: str, *, anchor: str = "start", bold: bool = False) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{weight} {_STYLE}>{escape(text)}</text>'


def bars(title: str, values: Sequence[tuple[str, float]], unit: str) -> str:
    """One horizontal bar for each name, from zero."""
    body = [_text(8, 20, f"{title}, {unit}", bold=True)]
    scale = (WIDTH - MARGIN - 90) / (max((value for _, value in values), default=0.0) or 1.0)
    y = 34.0
    for number, (name, value) in enumerate(values):
        colour = COLOURS[number % len(COLOURS)]
        body.append(_text(MARGIN - 8, y + BAR - 6, name, anchor="end"))
        body.append(f'<rect x="{MARGIN}" y="{y:g}" width="{value * scale:.1f}" height="{BAR}" fill="{colour}"/>')
        body.append(_text(MARGIN + value * scale + 6, y + BAR - 6, f"{value:g}"))
        y += BAR + GAP
    return _svg(y + 8, body)


def lines(title: str, xs: Sequence[float], series: dict[str, Sequence[float]], unit: str) -> str:
    """One line for each name; both axes are logarithmic. Values at or below zero are left out."""
    height, left, top, bottom = 320, 64, 34, 280
    positive = [value for values in series.values() for value in values if value > 0]
    body = [_text(8, 20, f"{title}, {unit}", bold=True)]
    if not positive or min(xs, default=0) <= 0:
        return _svg(height, [*body, _text(left, 60, "no figures")])
    low, high = math.floor(math.log10(min(positive))), math.ceil(math.log10(max(positive)))
    high = max(high, low + 1)
    first, last = math.log10(min(xs)), math.log10(max(xs))
    right = WIDTH - 170

    def at_x(value: float) -> float:
        return left + (math.log10(value) - first) / ((last - first) or 1.0) * (right - left)

    def at_y(value: float) -> float:
        return bottom - (math.log10(value) - low) / (high - low) * (bottom - top)

    for power in range(low, high + 1):
        y = at_y(10.0**power)
        body.append(f'<line x1="{left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}" stroke="#e2e8f0"/>')
        body.append(_text(left - 6, y + 4, f"{10.0**power:g}", anchor="end"))
    body += [_text(at_x(x), bottom + 18, f"{x:g}", anchor="middle") for x in xs]
    for number, (name, values) in enumerate(series.items()):
        colour = COLOURS[number % len(COLOURS)]
        points = [(at_x(x), at_y(y)) for x, y in zip(xs, values, strict=True) if y > 0]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        body.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        body += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in points]
        y = top + 6 + 18 * number
        body.append(f'<rect x="{right + 14}" y="{y - 9:g}" width="10" height="10" fill="{colour}"/>')
        body.append(_text(right + 30, y, name))
    return _svg(height, body)
