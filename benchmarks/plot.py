"""Plots for the documentation as SVG: bars of ratios, lines over sizes. Readable in light and dark mode."""

import math
from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

_WIDTH, _LEFT, _RIGHT, _BAR = 760, 250, 70, 26
_HEIGHT, _TOP, _BOTTOM, _SIDE = 380, 70, 50, 70
_COLOURS = ("#2a78d6", "#d9702b", "#3f9a54")
_STYLE = """<style>
text { font: 14px system-ui, sans-serif; fill: #222 } .head { font-weight: 600; font-size: 16px }
.small { font-size: 12px; fill: #666 } .axis { stroke: #999; stroke-width: 1 } .other { fill: #9aa7b5 }
.one { stroke: #999; stroke-dasharray: 4 4 } .own { fill: #2a78d6 } .line { fill: none; stroke-width: 2.5 }
@media (prefers-color-scheme: dark) { text { fill: #e6e6e6 } .small { fill: #a8a8a8 } .other { fill: #6c7a89 } }
</style>"""


def bars(title: str, groups: Mapping[str, Sequence[tuple[str, float]]]) -> str:
    """Return groups of labelled ratios as horizontal bars, the first of each group emphasised; 1.0 is marked.

    Groups share one scale. A ratio that is not finite has no bar, and its label says so.
    """
    finite = [ratio for rows in groups.values() for _, ratio in rows if math.isfinite(ratio)]
    scale = (_WIDTH - _LEFT - _RIGHT) / max(finite, default=1.0)
    parts, y = [_text(0, 20, title, "head")], 34
    for name, rows in groups.items():
        parts.append(_text(0, y + 18, name, "small"))
        top = y = y + 26
        for at, (label, ratio) in enumerate(rows):
            parts += _bar(y, label, ratio, scale, "other" if at else "own")
            y += _BAR
        x = _LEFT + scale
        parts.append(f'<line class="one" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{y}"/>')
        y += 8
    return _svg(title, y, parts)


def _bar(y: int, label: str, ratio: float, scale: float, kind: str) -> list[str]:
    width = ratio * scale if math.isfinite(ratio) else 0.0
    said = f"{ratio:.2f} x" if math.isfinite(ratio) else "failed"
    return [
        _text(_LEFT - 8, y + 17, label, anchor="end"),
        f'<rect class="{kind}" x="{_LEFT}" y="{y + 3}" width="{width:.1f}" height="{_BAR - 6}" rx="2"/>',
        _text(_LEFT + max(width, scale) + 6, y + 17, said),  # beside the mark, not across it
    ]


def lines(title: str, axis: str, sizes: Sequence[int], series: Mapping[str, Sequence[float]]) -> str:
    """Return ratios over sizes, both axes logarithmic; 1.0 is marked, and each line is named at its top."""
    low = min(0.5, *(min(values) for values in series.values()))
    high = max(2.0, *(max(values) for values in series.values()))

    def x(size: float) -> float:
        return _SIDE + (_WIDTH - 2 * _SIDE) * _share(size, sizes[0], sizes[-1])

    def y(ratio: float) -> float:
        return _HEIGHT - _BOTTOM - (_HEIGHT - _BOTTOM - _TOP) * _share(ratio, low, high)

    parts = [_text(0, 20, title, "head"), _text(_WIDTH / 2, _HEIGHT - 8, axis, "small", "middle")]
    for ratio in (mark for mark in (0.25, 0.5, 1.0, 2.0, 4.0) if low <= mark <= high):
        kind = "one" if ratio == 1.0 else "axis"
        parts.append(
            f'<line class="{kind}" x1="{_SIDE}" x2="{_WIDTH - _SIDE}" y1="{y(ratio):.1f}" y2="{y(ratio):.1f}"/>'
        )
        parts.append(_text(_SIDE - 8, y(ratio) + 5, f"{ratio:g} x", "small", "end"))
    parts += [_text(x(size), _HEIGHT - _BOTTOM + 20, f"{size:,}", "small", "middle") for size in sizes]
    for place, (name, values) in enumerate(series.items()):
        points = [(x(size), y(value)) for size, value in zip(sizes, values, strict=True)]
        parts += _line(name, place, points)
    return _svg(title, _HEIGHT, parts)


def _line(name: str, place: int, points: Sequence[tuple[float, float]]) -> list[str]:
    """Return a line with a dot at each size, and its name in a row of names above the plot."""
    colour, x = _COLOURS[place], _SIDE + place * 210
    joined = " ".join(f"{px:.1f},{py:.1f}" for px, py in points)
    return [
        f'<polyline class="line" stroke="{colour}" points="{joined}"/>',
        *(f'<circle fill="{colour}" r="4" cx="{px:.1f}" cy="{py:.1f}"/>' for px, py in points),
        f'<rect fill="{colour}" x="{x}" y="36" width="14" height="14"/>',
        _text(x + 20, 48, name),
    ]


def timelines(
    title: str, seconds: float, panels: Mapping[str, tuple[Mapping[str, Sequence[float]], Sequence[float]]]
) -> str:
    """Draw a panel a run: lines of values evenly spread over the time, and below them a mark for each event."""
    height, parts = 120, [_text(0, 20, title, "head")]
    for panel, (name, (series, marks)) in enumerate(panels.items()):
        top, base = 40 + panel * (height + 50), 40 + panel * (height + 50) + height
        high = max(max(values) for values in series.values())
        parts.append(_text(0, top, name))
        for place, (label, values) in enumerate(series.items()):
            step = (_WIDTH - 2 * _SIDE) / max(1, len(values) - 1)
            points = " ".join(
                f"{_SIDE + at * step:.1f},{base - value / high * (height - 20):.1f}" for at, value in enumerate(values)
            )
            parts.append(f'<polyline class="line" stroke="{_COLOURS[place]}" points="{points}"/>')
            parts.append(
                f'<rect fill="{_COLOURS[place]}" x="{300 + place * 210}" y="{top - 12}" width="12" height="12"/>'
            )
            parts.append(_text(318 + place * 210, top, label, "small"))
        for at in marks:
            mark = _SIDE + (_WIDTH - 2 * _SIDE) * at / seconds
            parts.append(f'<line stroke="#c33" x1="{mark:.1f}" x2="{mark:.1f}" y1="{base + 4}" y2="{base + 14}"/>')
        parts.append(_text(_SIDE - 8, base - height + 26, f"{high:.0f}", "small", "end"))
        parts.append(_text(_SIDE - 8, base + 14, "429", "small", "end"))
    bottom = 40 + len(panels) * (height + 50) - 8
    for minute in range(int(seconds) // 60 + 1):
        at = _SIDE + (_WIDTH - 2 * _SIDE) * minute * 60 / seconds
        parts.append(_text(at, bottom, f"{minute} min", "small", "middle"))
    return _svg(title, 40 + len(panels) * (height + 50), parts)


def _share(value: float, low: float, high: float) -> float:
    return math.log(value / low) / math.log(high / low) if high > low else 0.5


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _svg(title: str, height: int, parts: Sequence[str]) -> str:
    frame = f'viewBox="-10 0 {_WIDTH + 20} {height + 10}" width="{_WIDTH + 20}" height="{height + 10}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {frame} role="img" aria-label="{escape(title)}">'
    return "\n".join([head, f"<title>{escape(title)}</title>", _STYLE, *parts, "</svg>\n"])
