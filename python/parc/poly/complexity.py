"""The parallel complexity of a system: work and span under each way to solve it.

*Span* is the number of steps of which each needs the one before; *work* counts multiply-adds.  A direct solver of an
affine recurrence `x[t] = A[t] x[t - 1] + b[t]` evaluates all bodies once, for A and b, and composes the steps,
`(A, b) o (C, d) = (A C, A d + b)`; what that costs depends on the kind of the blocks A: H for a diagonal of H elements,
H^3 for a dense matrix.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch_mlir import ir

from parc.poly import count
from parc.poly.affine import evaluate, with_names
from parc.poly.dependences import Dependence
from parc.poly.formula import Number, product, total
from parc.poly.linearity import Jacobian
from parc.poly.model import System
from parc.poly.structure import Block, Component, Structure
from parc.poly.wavefront import Layer, is_identity
from parc.poly.work import multiply_adds, tile_of


@dataclass(frozen=True)
class Cost:
    """What one solver takes; without numbers where it does not apply."""

    solver: str
    span: Number | None
    work: Number | None
    note: str = ""
    """Why it does not apply, or what the numbers mean."""

    def __str__(self) -> str:
        if self.span is None or self.work is None:
            return f"{self.solver:<20}{self.note}"
        note = f"   {self.note}" if self.note else ""
        return f"{self.solver:<20}span {self.span}, work {self.work}{note}"


@dataclass(frozen=True)
class _Recurrence:
    """An affine recurrence, seen as `x[t] = A[t] x[t - 1] + b[t]` in its innermost level."""

    levels: tuple[Number, ...]
    """The steps of its levels, outermost first."""
    chains: Number
    """Recurrences that do not need each other: values of other dimensions, and rows."""
    composition: Number
    """Multiply-adds of a product of two matrices A."""
    application: Number
    """Multiply-adds of such a product with x."""
    is_constant: bool
    """Is A the same at all points, so that its powers are enough?"""

    @property
    def points(self) -> Number:
        return product(self.levels)

    def composed(self, times: Number, rounds: Number) -> Number:
        """The work of composing this many pairs of steps, in so many rounds."""
        return rounds * self.composition if self.is_constant else self.chains * times * self.composition


class _Costs:
    """The costs of one system at given sizes."""

    def __init__(
        self, system: System, flow: Sequence[Dependence], structure: Structure, sizes: Mapping[str, int]
    ) -> None:
        self.system, self.flow, self.structure, self.sizes = system, flow, structure, sizes
        self.written = {w.op: tile_of(system, w) for e in system.equations for w in e.writes}
        parts = [Number.of(multiply_adds(system), sizes)]
        for block in structure.blocks:
            points = Number.of(count.pairs([block.relation]), sizes)
            parts += [points * self._entries(jacobian) for jacobian in block.jacobians]
        self.once = total(parts)
        """The work of evaluating all points once: their matrix products, and the entries of their other blocks."""

    def direct(self) -> list[Cost]:
        """The direct solvers of affine systems: each recurrence after those that it reads, and all of them nested."""
        recurrences = {c: self._recurrence(c) for c in self.structure.components if c.is_recurrent}
        found = []
        for name, span, work in _DIRECT:
            spans = {c: product([*r.levels[:-1], span(r.levels[-1])]) for c, r in recurrences.items()}
            found.append(Cost(name, self._path(spans), total([self.once, *map(work, recurrences.values())])))
        if self.structure.is_affine and self.structure.is_nested:
            found.append(self._nested(max(recurrences.values(), key=lambda r: r.points)))
        return found

    def _nested(self, longest: _Recurrence) -> Cost:
        """A scan over the steps of all layers together: its products are sums over the layers (`solvers/nested.py`)."""
        layers = self.structure.layers
        beside = [*([Number.of(layers.rows, self.sizes)] if layers is not None else []), *longest.levels[:-1]]
        steps = longest.levels[-1]
        # The blocks of a step fill the triangle of its layers; a product of two triangles is a sum for each block.
        count = int(product(beside))
        products = Number.exactly(count * (count + 1) * (count + 2) // 6)
        filled = product([steps, products, longest.chains, longest.composition])
        sums = [total([Number.exactly(1), level.log2()]) for level in beside]
        return Cost("nested scan", product([*sums, 2 * steps.log2()]), self.once + filled, "composed blocks fill in")

    def _entries(self, jacobian: Jacobian) -> Number:
        """The entries of a sparse block, rows of the tile together; those of products are counted with these."""
        kind = jacobian.kind
        if kind.name == "zero" or not (kind.is_elementwise or kind.name in ("diagonals", "banded")):
            return Number.exactly(0)
        return self._size(self.written[jacobian.write]) * max(1, kind.number)

    def _size(self, extents: Sequence[ir.AffineExpr]) -> Number:
        values = [self.sizes[s] for s in self.system.symbols]
        names = self.system.symbols
        return product([Number(evaluate(e, values), with_names(str(e), (), names)) for e in extents])

    def _recurrence(self, component: Component) -> _Recurrence:
        """The recurrence of a component, whose state is all that it reads of itself."""
        blocks = [b for b in self.structure.blocks if {b.source, b.sink} <= set(component.core)]
        kinds = [j.kind for b in blocks for j in b.jacobians if j.kind.name != "zero"]
        # What is read at the point that defines it is no state: it is computed from the state on the way.
        carried = {b.array for b in blocks if not is_identity(b.relation)}
        tiles = {
            w.array: [e for e in self.written[w.op] if str(e) != "1"]
            for name in component.core
            for w in self.system.equation(name).writes
            if w.array in carried
        }
        rows = min((k.tied for k in kinds), default=0)
        one_row = next(iter(tiles.values()))[:rows]
        deep = [level for level in component.levels if level.direction != "diagonal"]
        # Several steps back are one step back of a state of several steps.
        steps = [Number.of(level.rows, self.sizes) for level in deep]
        back = steps[-1] if deep[-1].bandwidth is None else deep[-1].bandwidth
        state = total([self._width(tile[rows:], array, rows, blocks) for array, tile in tiles.items()]) * back
        coupled = len(tiles) * back
        if all(k.is_elementwise for k in kinds):
            composition, application = state * coupled**2, state * coupled
        elif len(tiles) == 1 and all(k.is_elementwise or k.name == "block diagonal" for k in kinds):
            size = max(k.number for k in kinds) * back
            composition, application = state * size**2, state * size
        else:
            composition, application = state * state * state, state * state
        beside = [Number.of(level.rows, self.sizes) for level in component.levels if level.direction == "diagonal"]
        return _Recurrence(
            levels=tuple(steps),
            chains=product([self._size(one_row), *beside]),
            composition=composition,
            application=application,
            is_constant=all(j.is_constant for b in blocks for j in b.jacobians),
        )

    def _width(self, units: Sequence[ir.AffineExpr], array: str, rows: int, blocks: Sequence[Block]) -> Number:
        """What a state that is kept in an array counts for: fewer than its elements where products narrow it."""
        reads = {j.read: j.kind for b in blocks for j in b.jacobians if b.array == array}
        widths = [kind.width for kind in reads.values() if kind.width is not None and kind.tied == rows]
        every = self._size(units)
        return every if len(widths) < len(reads) or sum(widths) >= every else Number.exactly(sum(widths))

    def _path(self, spans: Mapping[Component, Number]) -> Number:
        """The longest path through the layers; one that is no recurrence takes a step."""
        place = {name: c for c in self.structure.components for name in c.equations}
        paths: dict[Component, list[Number]] = {}
        layers = self.structure.layers
        upper = layers is not None and layers.direction == "upper"
        for component in self.structure.components[:: -1 if upper else 1]:
            before = [place[d.source] for d in self.flow if place[d.sink] is component]
            longest = max((paths[b] for b in before if b is not component), key=_steps, default=[])
            paths[component] = [*longest, spans.get(component, Number.exactly(1))]
        return total(max(paths.values(), key=_steps))


def costs(
    system: System,
    flow: Sequence[Dependence],
    structure: Structure,
    layers: Sequence[Layer] | None,
    sizes: Mapping[str, int],
) -> tuple[Cost, ...]:
    """The costs of all solvers at given sizes; needs a current MLIR context."""
    model = _Costs(system, flow, structure, sizes)
    once = model.once
    if layers is None:
        note = "does not apply: its points have no affine time"
        return Cost("sequential", Number.of(structure.rows, sizes), once), Cost("wavefront", None, None, note)
    depth = Number.of(count.span(system, layers), sizes)
    found = [
        Cost("sequential", Number.of(count.points(system, layers), sizes), once),
        Cost("wavefront", depth, once),
        Cost("Jacobi", depth, depth * once, "at most: as many iterations as waves; usually far fewer"),
    ]
    recurrences = [c for c in structure.components if c.is_recurrent]
    other = next((c for c in recurrences if not c.is_affine), None)
    if other is not None:
        found.append(Cost("scan", None, None, f"does not apply: the recurrence of {other.core[0]} is not affine"))
    elif recurrences:
        found += model.direct()
    return tuple(found)


def _steps(path: Iterable[Number]) -> int:
    return sum(map(int, path))


def _scan_work(r: _Recurrence) -> Number:
    return r.composed(2 * r.points, r.levels[-1].log2()) + r.chains * (2 * r.points) * r.application


def _reduction_work(r: _Recurrence) -> Number:
    return r.composed(r.points, r.levels[-1].log2()) + r.chains * (2 * r.points) * r.application


def _doubling_work(r: _Recurrence) -> Number:
    rounds = r.levels[-1].log2()
    return r.composed(r.points * rounds, rounds) + r.chains * (r.points * rounds) * r.application


_DIRECT: tuple[tuple[str, Callable[[Number], Number], Callable[[_Recurrence], Number]], ...] = (
    ("scan", lambda n: 2 * n.log2(), _scan_work),
    ("cyclic reduction", lambda n: 2 * n.log2(), _reduction_work),
    ("recursive doubling", lambda n: n.log2(), _doubling_work),
)
"""Name, span and work of each: G. Blelloch (1990), R. Hockney (1965) and P. Kogge and H. Stone (1973)."""
