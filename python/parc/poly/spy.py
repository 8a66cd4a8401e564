"""A picture of a system's block matrix: a spy plot whose blocks are coloured by their kind."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby

from parc.poly.affine import SET
from parc.poly.blocks import Kind
from parc.poly.example import all_points
from parc.poly.groups import strong_components
from parc.poly.model import System
from parc.poly.structure import Component, Structure
from parc.poly.wavefront import Layer

_MOST_ROWS = 72
_LARGEST = 12
"""Sizes are drawn no larger than this, and smaller where there would be more rows than `_MOST_ROWS`."""
_WIDTH, _LARGEST_CELL, _TOP, _LEGEND, _LINE = 560, 24, 10, 22, 12

_COLOURS = {
    "zero": "#eedd99",
    "identity": "#9ecae1",
    "scaled identity": "#6baed6",
    "diagonal": "#2171b5",
    "diagonals": "#08519c",
    "banded": "#41ab5d",
    "block diagonal": "#006d2c",
    "low rank": "#fdae6b",
    "diagonal plus low rank": "#e6550d",
    "dense": "#a50f15",
}
_ROW_COLOUR = "#bdbdbd"

Row = tuple[str, tuple[int, ...]]
"""An equation and one of its points."""


@dataclass(frozen=True)
class Matrix:
    """The block matrix of a system at given sizes."""

    sizes: Mapping[str, int]
    rows: tuple[Row, ...]
    """In an order in which the matrix is triangular."""
    blocks: Mapping[tuple[Row, Row], Kind]
    """(sink, source) -> the most general kind of the blocks there; the ones on the diagonal are left out."""
    bands: tuple[tuple[str, int], ...]
    """The labels of runs of rows, and their lengths."""
    layer_ends: tuple[int, ...]
    """The number of rows up to the end of each layer."""


def matrix(system: System, structure: Structure, layers: Sequence[Layer] | None, sizes: Mapping[str, int]) -> Matrix:
    """All rows and blocks at given sizes of all symbols."""
    points = {e.name: all_points(e.domain, sizes) for e in system.equations}
    blocks: dict[tuple[Row, Row], Kind] = {}
    for block in structure.blocks:
        split = block.relation.domain_tuple_dim()
        for pair in all_points(block.relation.wrap(), sizes):
            place = (block.sink, pair[split:]), (block.source, pair[:split])
            before = blocks.get(place)
            if before is None or before.generality < block.kind.generality:
                blocks[place] = block.kind
    bands: list[tuple[str, int]] = []
    rows: list[Row] = []
    ends: list[int] = []
    found = {layer.group.equations: layer for layer in layers or ()}
    turned = structure.direction == "mixed" and structure.layers is not None and structure.layers.direction == "upper"
    for component in reversed(structure.components) if turned else structure.components:
        for label, run in _bands(system, structure, component, found.get(component.equations), points, sizes):
            bands.append((label, len(run)))
            rows += run
        ends.append(len(rows))
    if layers is None:
        rows = _sorted(rows, blocks)
        bands = [(name, len(list(run))) for name, run in groupby(rows, key=lambda row: row[0])]
    return Matrix(dict(sizes), tuple(rows), blocks, tuple(bands), tuple(ends))


def spy(system: System, structure: Structure, layers: Sequence[Layer] | None, sizes: Mapping[str, int]) -> str:
    """A self-contained SVG image of the matrix at (at most) the given sizes.

    A block's row is what needs, its column what is needed; on the diagonal each row has itself, drawn grey.
    """
    drawn = {name: min(sizes[name], _LARGEST) for name in system.symbols}
    while structure.rows.at(drawn) > _MOST_ROWS and max(drawn.values(), default=0) > 2:
        drawn = {name: min(size, max(drawn.values()) - 1) for name, size in drawn.items()}
    if structure.rows.at(drawn) > 4 * _MOST_ROWS:
        return f"<p>There are {structure.rows.at(drawn)} block rows: too many to draw.</p>"
    return _draw(matrix(system, structure, layers, drawn))


def _bands(
    system: System,
    structure: Structure,
    component: Component,
    layer: Layer | None,
    points: Mapping[str, list[tuple[int, ...]]],
    sizes: Mapping[str, int],
) -> Iterator[tuple[str, list[Row]]]:
    """The rows of a component with labels: those of a recurrence step by step, those of any other equation together."""
    before, after = (layer.group.before, layer.group.after) if layer is not None else (component.equations, ())
    if structure.direction == "upper":
        before, after = after[::-1], before[::-1]
    yield from ((name, [(name, point) for point in points[name]]) for name in before)
    if layer is not None:
        core = [(name, point) for name in component.core for point in points[name]]
        place, names = layer.local.level, ", ".join(component.core)
        mixed = structure.direction == "mixed"
        if [level.over for level in component.levels] == ["time"]:
            sign = -1 if component.levels[0].direction == "upper" and not mixed else 1
            core.sort(key=lambda row: (sign * _time(system, layer, row, sizes), sign * place[row[0]]))
            yield names, core
        else:
            domain = system.equation(component.core[0]).domain
            dims = [domain.get_dim_name(SET, d) for d in range(domain.dim(SET))]
            # Where some levels are lower and some upper, the upper ones are turned round.
            order = [
                (dims.index(level.over), -1 if mixed and level.direction == "upper" else 1)
                for level in component.levels
            ]
            within = -1 if structure.direction == "upper" else 1
            core.sort(key=lambda row: ([sign * row[1][d] for d, sign in order], within * place[row[0]]))
            outer = groupby(core, key=lambda row: tuple(row[1][d] for d, _ in order[:-1]))
            yield from ((f"{names}{list(at) if at else ''}", list(run)) for at, run in outer)
    yield from ((name, [(name, point) for point in points[name]]) for name in after)


def _time(system: System, layer: Layer, row: Row, sizes: Mapping[str, int]) -> int:
    time = layer.local.wave[row[0]]
    terms = zip((*time.dims, *time.symbols), (*row[1], *(sizes[s] for s in system.symbols)), strict=True)
    return sum(a * b for a, b in terms) + time.constant


def _sorted(rows: Sequence[Row], blocks: Mapping[tuple[Row, Row], Kind]) -> list[Row]:
    """Rows so that each follows those that it needs."""
    place = {row: f"{i:09}" for i, row in enumerate(rows)}
    edges = [(place[source], place[sink]) for sink, source in blocks]
    return [rows[int(name)] for c in strong_components(sorted(place.values()), edges) for name in c]


def _draw(drawn: Matrix) -> str:
    count = len(drawn.rows)
    if not count:
        return "<p>There are no points at these sizes.</p>"
    cell = max(4, min(_LARGEST_CELL, _WIDTH // count))
    place = {row: i for i, row in enumerate(drawn.rows)}
    left = 16 + 7 * max(len(label) for label, _ in drawn.bands)
    kinds = sorted({kind.name for kind in drawn.blocks.values()}, key=list(_COLOURS).index)
    side = cell * count
    height = _TOP + side + _LEGEND * (len(kinds) + 3)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + max(side, 320) + 8}" height="{height}" '
        f'font-family="sans-serif" font-size="11" role="img"><title>{escape(_title(drawn))}</title>',
        f'<path d="M{left} {_TOP}h{side}v{side}h-{side}z" fill="none" stroke="#444"/>',
    ]
    start, last = 0, -float(_LINE)
    for label, length in drawn.bands:
        y = _TOP + cell * (start + length / 2) + 4
        if length and y - last >= _LINE:
            parts.append(f'<text x="{left - 8}" y="{y:g}" text-anchor="end">{escape(label)}</text>')
            last = y
        start += length
        parts.append(_cross(cell * start, left, side, "#444" if start in drawn.layer_ends else "#ccc"))
    parts += [_square(left + cell * i, _TOP + cell * i, cell, _ROW_COLOUR, _name(row)) for row, i in place.items()]
    for (sink, source), kind in drawn.blocks.items():
        x, y = left + cell * place[source], _TOP + cell * place[sink]
        parts.append(_square(x, y, cell, _COLOURS[kind.name], f"{_name(sink)} needs {_name(source)}: {kind}"))
    for i, (name, colour) in enumerate([("block row", _ROW_COLOUR), *((k, _COLOURS[k]) for k in kinds)]):
        y = _TOP + side + _LEGEND * (i + 1)
        parts.append(_square(left, y - 6, 12, colour, name) + f'<text x="{left + 20}" y="{y + 4}">{name}</text>')
    parts.append(f'<text x="{left}" y="{height - _LEGEND / 2:g}">{escape(_title(drawn))}</text>')
    return "".join(parts) + "</svg>"


def _title(drawn: Matrix) -> str:
    at = ", ".join(f"{name}={value}" for name, value in drawn.sizes.items())
    at = f" for {at}" if at else ""
    return f"block matrix{at}: {len(drawn.rows)} rows, {len(drawn.blocks)} blocks off the diagonal"


def _cross(at: int, left: int, side: int, colour: str) -> str:
    return f'<path d="M{left} {_TOP + at}h{side}M{left + at} {_TOP}v{side}" stroke="{colour}"/>'


def _square(x: float, y: float, size: int, colour: str, title: str) -> str:
    inside = size - 1
    return (
        f'<path d="M{x + 0.5:g} {y + 0.5:g}h{inside}v{inside}h-{inside}z" fill="{colour}">'
        f"<title>{escape(title)}</title></path>"
    )


def _name(row: Row) -> str:
    return f"{row[0]}[{', '.join(map(str, row[1]))}]"
