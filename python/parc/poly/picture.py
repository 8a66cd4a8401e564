"""A picture of a schedule: every point in a grid of equations and steps, coloured by its wave."""

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape

import islpy as isl

from parc.poly.affine import PARAM, SET
from parc.poly.model import Equation, System

_LARGEST = 12
"""Sizes are drawn no larger than this."""
_CELL, _LABEL, _TOP = 34, 110, 26


@dataclass(frozen=True)
class _Box:
    row: str
    column: int
    time: tuple[int, ...]


def svg(system: System, sizes: Mapping[str, int]) -> str:
    """A self-contained SVG image of a scheduled system at (at most) the given sizes."""
    drawn = {name: min(sizes[name], _LARGEST) for name in system.symbols}
    boxes = [box for e in system.equations for box in _boxes(e, drawn)]
    if not boxes:
        return "<p>There are no points at these sizes.</p>"
    rows = list(dict.fromkeys(box.row for box in boxes))
    first = min(box.column for box in boxes)
    # A wave is what `count.waves` counts; numbers are ranks, for times may have gaps, or be negative.
    length = 1 if system.strategy == "wavefront" else None
    numbers = {wave: i for i, wave in enumerate(sorted({box.time[:length] for box in boxes}))}
    width = _LABEL + _CELL * (max(box.column for box in boxes) - first + 1) + 8
    height = _TOP + _CELL * len(rows) + 8
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif" '
        f'font-size="11" role="img"><title>{escape(_title(system, drawn, len(numbers)))}</title>'
    ]
    parts += [
        f'<text x="{_LABEL - 8}" y="{_TOP + _CELL * i + _CELL / 2 + 4}" text-anchor="end">{escape(row)}</text>'
        for i, row in enumerate(rows)
    ]
    parts += [
        f'<text x="{_LABEL + _CELL * (c - first) + _CELL / 2}" y="{_TOP - 8}" text-anchor="middle">{c}</text>'
        for c in sorted({box.column for box in boxes})
    ]
    for box in boxes:
        x, y = _LABEL + _CELL * (box.column - first), _TOP + _CELL * rows.index(box.row)
        number = numbers[box.time[:length]]
        parts.append(
            f"<g><title>{escape(f'{box.row}, step {box.column}: time {box.time}')}</title>"
            f'<rect x="{x + 1}" y="{y + 1}" width="{_CELL - 2}" height="{_CELL - 2}" rx="4" '
            f'fill="hsl({number * 47 % 360},70%,78%)"/>'
            f'<text x="{x + _CELL / 2}" y="{y + _CELL / 2 + 4}" text-anchor="middle">{number}</text></g>'
        )
    return "".join(parts) + "</svg>"


def _title(system: System, sizes: Mapping[str, int], waves: int) -> str:
    at = ", ".join(f"{name}={value}" for name, value in sizes.items())
    return f"{system.strategy} schedule{f' for {at}' if at else ''}: {waves} waves, numbered in their order"


def _boxes(equation: Equation, sizes: Mapping[str, int]) -> list[_Box]:
    """The points of one equation; all dimensions but the last make rows of their own."""
    assert equation.time is not None, "drawn before it was scheduled"
    pairs = equation.time
    for i in range(pairs.dim(PARAM)):
        pairs = pairs.fix_val(PARAM, i, isl.Val(sizes[pairs.get_dim_name(PARAM, i)]))
    rank = equation.domain.dim(SET)
    found: list[_Box] = []

    def add(point: isl.Point) -> None:
        count = rank + pairs.range_tuple_dim()
        values = [point.get_coordinate_val(SET, i).to_python() for i in range(count)]
        outer, time = values[: max(rank - 1, 0)], tuple(values[rank:])
        row = f"{equation.name}[{', '.join(map(str, outer))}]" if outer else equation.name
        found.append(_Box(row, values[rank - 1] if rank else 0, time))

    pairs.wrap().foreach_point(add)
    return sorted(found, key=lambda box: (box.row, box.column))
