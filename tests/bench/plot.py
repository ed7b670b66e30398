"""Figures as an SVG picture: bars on a logarithmic scale, how many times better than the peer.

Called by __main__.py. Written by hand: a plotting library would be the largest dependency of all.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from html import escape

from tests.bench.harness import Figure

_LABELS, _SCALE, _VALUES = 330, 430, 300  # widths
_ROW, _TOP, _BAR = 26, 64, 14
_STYLE = """
text { font: 12px system-ui, sans-serif; fill: #24292f }
.title { font-size: 16px; font-weight: 600 }
.quiet { fill: #6e7781 } .grid { stroke: #d0d7de } .even { stroke: #57606a } .ground { fill: #fff }
.met { fill: #2da44e } .missed { fill: #cf222e } .plain { fill: #8c959f }
.target { stroke: #24292f; stroke-width: 2 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .quiet { fill: #8d96a0 }
  .grid { stroke: #30363d } .ground { fill: #0d1117 }
  .target { stroke: #e6edf3 } }
"""


def svg(title: str, figures: list[Figure]) -> str:
    """Every figure that has a value: its bar, its target as a stroke, both values as text."""
    rows = [(f, times) for f in figures if (times := f.times_better) is not None]
    marks = [times for _, times in rows] + [f.times_wanted or 1.0 for f, _ in rows]
    low = min([math.floor(math.log10(min(marks, default=1.0))), -1])
    high = max([math.ceil(math.log10(max(marks, default=1.0))), 1])

    def x(times: float) -> float:
        return _LABELS + (math.log10(times) - low) / (high - low) * _SCALE

    width, height = _LABELS + _SCALE + _VALUES, _TOP + len(rows) * _ROW + 16
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">',
        f"<title>{escape(title)}</title><style>{_STYLE}</style>",
        f'<rect class="ground" width="{width}" height="{height}"/>',
        f'<text class="title" x="12" y="24">{escape(title)}</text>',
    ]
    for power in range(low, high + 1):
        at = x(10.0**power)
        kind = "even" if power == 0 else "grid"
        parts.append(f'<path class="{kind}" d="M{at:.1f} {_TOP - 8}V{height - 12}"/>')
        parts.append(_text(at, _TOP - 14, f"{10.0**power:g}×", "quiet", "middle"))
    for number, (figure, times) in enumerate(rows):
        parts += _bar(figure, times, x, _TOP + number * _ROW)
    return "\n".join([*parts, "</svg>", ""])


def _bar(figure: Figure, times: float, x: Callable[[float], float], top: float) -> list[str]:
    kind = {True: "met", False: "missed", None: "plain"}[figure.met]
    start, end = sorted((x(1), x(times)))
    limit = figure.times_wanted
    against = f"{figure.peer:,.4g} {figure.unit} {figure.peer_name}"
    if figure.limited:
        against = f"limit {figure.target:g} {figure.unit}"
    parts = [
        _text(_LABELS - 10, top + 11, figure.figure, "", "end"),
        f'<rect class="{kind}" x="{start:.1f}" y="{top}" width="{max(end - start, 1):.1f}" '
        f'height="{_BAR}"/>',
        _text(_LABELS + _SCALE + 8, top + 11, f"{times:.2g}×: {figure.ours:,.4g} to {against}"),
    ]
    if limit is not None:
        parts.append(f'<path class="target" d="M{x(limit):.1f} {top - 3}v{_BAR + 6}"/>')
    return parts


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y}" text-anchor="{anchor}">{escape(text)}</text>'
