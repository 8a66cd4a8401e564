"""The structure of a system's block matrix: where its blocks are, what they are, and whether the system is affine.

A *block row* is a point of an equation, with the tiles that it defines; a dependence is a nonzero *block*.  In the
order of the program the matrix is lower triangular for a network and upper triangular for its adjoint.  The matrix has
*levels*: the layers of a stack are the rows of an outer matrix whose blocks have the steps as rows.

Everything holds for all sizes: levels and bandwidths come from the exact dependences, with symbols.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import permutations
from typing import Literal

import islpy as isl
from torch_mlir import ir

from parc.poly.affine import IN, OUT, SET, aff_text
from parc.poly.blocks import Kind
from parc.poly.count import Count, instances, number_of, pairs
from parc.poly.dependences import Dependence
from parc.poly.groups import strong_components
from parc.poly.linearity import Jacobian, is_affine, jacobians
from parc.poly.model import System
from parc.poly.wavefront import Layer, time_distances
from parc.poly.words import listed

Direction = Literal["lower", "upper", "diagonal"]
"""Where the blocks off the diagonal are; `diagonal` where there are none."""


@dataclass(frozen=True)
class Level:
    """The blocks of one level: rows in an order, and how far apart those are that need each other."""

    over: str
    """What counts the rows: a dimension such as `t`, `layers`, or `time` for an affine function of the dimensions."""
    rows: Count
    direction: Direction
    bandwidth: int | None
    """The largest distance; None where it grows with the sizes."""
    bandwidth_formula: str
    blocks: int | None = None
    """For rows that are no points but layers: how many of the off-diagonal blocks are not zero."""

    @property
    def name(self) -> str:
        """`lower bidiagonal`, `lower banded (bandwidth 3)`, `upper triangular (bandwidth T - 1)`, `diagonal`."""
        if self.direction == "diagonal":
            return "diagonal"
        if self.bandwidth == 1:
            return f"{self.direction} bidiagonal"
        kind = "triangular" if self.bandwidth is None or self.is_full else "banded"
        return f"{self.direction} {kind} (bandwidth {self.bandwidth_formula})"

    @property
    def is_full(self) -> bool:
        """For layers: does the band reach from corner to corner?"""
        return self.blocks is not None and self.bandwidth == self.rows.at({}) - 1 and self.bandwidth > 1


@dataclass(frozen=True)
class Block:
    """The blocks that one read makes: derivatives of what the sink writes by what the source wrote."""

    source: str
    sink: str
    array: str
    """The unknown through which the sink depends on the source."""
    relation: isl.Map
    """`{ source instance -> sink instance }`"""
    jacobians: tuple[Jacobian, ...]
    """One for each tile that the sink writes and that depends on the read."""

    @property
    def kind(self) -> Kind:
        """The most general of the kinds of its Jacobians; zero without any."""
        kinds = [j.kind for j in self.jacobians] or [Kind("zero", 0, (None, None))]
        return max(kinds, key=lambda k: k.generality)


@dataclass(frozen=True)
class Component:
    """A layer: a recurrence with what feeds only it."""

    equations: tuple[str, ...]
    core: tuple[str, ...]
    """The equations of the recurrence itself."""
    levels: tuple[Level, ...]
    """Outermost first; none where there is one point, or no order of an affine form."""
    is_ordered: bool
    """Was an affine order found?"""
    is_affine: bool
    """Is the recurrence affine in its own unknowns, with those of other layers given?"""

    @property
    def is_recurrent(self) -> bool:
        """Do points need each other?"""
        return not self.is_ordered or any(level.direction != "diagonal" for level in self.levels)

    @property
    def name(self) -> str:
        """`block lower bidiagonal in t (T rows)`."""
        if not self.is_ordered:
            return "block triangular with the sparsity of a general DAG"
        named = [f"block {level.name} in {level.over} ({level.rows} rows)" for level in self.levels]
        return ", each block on the diagonal ".join(named) or "one block row"


@dataclass(frozen=True)
class Structure:
    """The block matrix of a system."""

    layers: Level | None
    """The matrix of the layers; None where there is one."""
    components: tuple[Component, ...]
    """The layers, in the order of the rows of `layers`."""
    blocks: tuple[Block, ...]
    is_affine: bool
    """Is the whole system affine, together, in all unknowns but those `given`?"""
    given: tuple[str, ...]
    """Unknowns that no recurrence is needed for, and that have to be known first for the system to be affine."""
    rows: Count
    nonzeros: Count
    """Blocks off the diagonal that are not zero."""

    def density(self, sizes: Mapping[str, int]) -> float:
        """The share of the blocks of a full triangle that are not zero; 0 for up to one row."""
        rows = self.rows.at(sizes)
        return self.nonzeros.at(sizes) / (rows * (rows - 1) / 2) if rows > 1 else 0.0

    @property
    def direction(self) -> Direction | Literal["mixed"]:
        """That of all levels; `mixed` where some are lower and some are upper in the order of the program."""
        levels = [*(level for c in self.components for level in c.levels), *([self.layers] if self.layers else [])]
        found = {level.direction for level in levels} - {"diagonal"}
        return "mixed" if len(found) > 1 else next(iter(found), "diagonal")

    @property
    def is_nested(self) -> bool:
        """Are layers or dimensions bidiagonal whose blocks are bidiagonal again, as in a stacked recurrence?"""
        chains = [[*([self.layers] if self.layers else []), *c.levels] for c in self.components]
        return bool(chains) and all(len(chain) > 1 and all(level.bandwidth == 1 for level in chain) for chain in chains)

    @property
    def linearity(self) -> str:
        """A sentence on what the system is affine in."""
        if self.is_affine:
            few = [*self.given[:3], *([f"{len(self.given) - 3} others"] if len(self.given) > 3 else [])]
            return "affine in all unknowns together" + (f", given {listed(few)}" if few else "")
        recurrences = [c for c in self.components if c.is_recurrent]
        if recurrences and all(c.is_affine for c in recurrences):
            return "not affine as a whole; each recurrence is affine in its own unknowns, those of the others given"
        affine = [c.core[0] for c in recurrences if c.is_affine]
        return f"not affine{f', but for the recurrence of {listed(affine)}' if affine else ''}"

    @property
    def mixes_rows(self) -> tuple[str, ...]:
        """The equations in which a row of a tile (of a batch) depends on other rows."""
        return tuple(dict.fromkeys(b.sink for b in self.blocks if any(j.mixes_rows for j in b.jacobians)))

    @property
    def name(self) -> str:
        """One line."""
        alike = {c.name for c in self.components}
        if self.layers is None:
            return self.components[0].name if self.components else "empty"
        head = f"block {self.layers.name} in {self.layers.rows} layers"
        if self.layers.direction != "diagonal" and self.layers.bandwidth != 1:
            possible = self.layers.rows.at({}) * (self.layers.rows.at({}) - 1) // 2
            head += f" ({self.layers.blocks} of {possible} blocks)"
        return f"{head}, each layer {next(iter(alike))}" if len(alike) == 1 else f"{head} of several kinds"


def find_structure(system: System, flow: Sequence[Dependence], layers: Sequence[Layer] | None) -> Structure:
    """The structure of a well-formed system with the dependences `flow`; needs a current MLIR context.

    `layers` are those of `wavefront.waves`; where it found none the components have no levels.
    """
    bodies = {e.name: jacobians(e.op) for e in system.equations}
    names = tuple(e.name for e in system.equations)
    arrays = [u.name for u in system.unknowns]
    dependent = _dependent(arrays, [j for body in bodies.values() for j in body])
    is_whole_affine = _affine_in(system, names, dependent, bodies)
    needs_others = is_whole_affine and not _affine_in(system, names, arrays, bodies)
    level, order = _layer_level(system, flow, layers or ())
    components = tuple(_component(system, flow, layer, dependent, bodies) for layer in order)
    return Structure(
        layers=level,
        components=components if layers is not None else (Component(names, names, (), False, is_whole_affine),),
        blocks=tuple(_block(d, bodies[d.sink]) for d in flow),
        is_affine=is_whole_affine,
        given=tuple(name for name in arrays if name not in dependent) if needs_others else (),
        rows=instances(system),
        nonzeros=pairs(_disjoint(flow)),
    )


def _disjoint(flow: Iterable[Dependence]) -> list[isl.Map]:
    """The dependences as relations without common pairs: a point that reads several tiles of another needs it once."""
    seen: dict[tuple[str, str], isl.Map] = {}
    found = []
    for d in flow:
        before = seen.get((d.source, d.sink))
        new = d.relation if before is None else d.relation.subtract(before).coalesce()
        if not new.is_empty():
            found.append(new)
            seen[d.source, d.sink] = new if before is None else before.union(new)
    return found


def _block(dependence: Dependence, bodies: Iterable[Jacobian]) -> Block:
    mine = tuple(j for j in bodies if j.read == dependence.read.op)
    return Block(dependence.source, dependence.sink, dependence.array, dependence.relation, mine)


def _dependent(arrays: Sequence[str], blocks: Iterable[Jacobian]) -> set[str]:
    """The arrays that a recurrence is needed for: those in a circle of blocks, and what depends on them.

    All arrays where there is no recurrence.
    """
    edges = {(_array_name(j.read.operands[0]), _array_name(j.write.operands[1])) for j in blocks}
    circles = [c for c in strong_components(arrays, edges) if len(c) > 1 or (c[0], c[0]) in edges]
    found: set[str] = set()
    new = {name for circle in circles for name in circle} or set(arrays)
    while new:
        found |= new
        new = {sink for source, sink in edges if source in new} - found
    return found


def _array_name(array: ir.Value) -> str:
    return ir.StringAttr(array.owner.attributes["name"]).value


def _affine_in(
    system: System, equations: Iterable[str], arrays: Collection[str], bodies: Mapping[str, Iterable[Jacobian]]
) -> bool:
    """Are `equations` affine in what they read from `arrays`, together?"""
    return all(
        is_affine(bodies[name], [r.op.results[0] for r in system.equation(name).reads if r.array in arrays])
        for name in equations
    )


def _component(
    system: System,
    flow: Sequence[Dependence],
    layer: Layer,
    dependent: Collection[str],
    bodies: Mapping[str, Iterable[Jacobian]],
) -> Component:
    core = layer.group.core
    own = {write.array for name in core for write in system.equation(name).writes}.intersection(dependent)
    inside = [d for d in flow if d.source in core and d.sink in core]
    domains = [system.equation(name).domain for name in core]
    levels = _levels(domains, inside)
    if levels is None:
        levels = (_time_level(system, layer, inside),)
    return Component(layer.group.equations, core, levels, True, _affine_in(system, core, own, bodies))


def _levels(domains: Sequence[isl.Set], inside: Sequence[Dependence]) -> tuple[Level, ...] | None:
    """A level for each dimension of a recurrence, where its points in some order of the dimensions are triangular."""
    rank = domains[0].dim(SET)
    if any(d.dim(SET) != rank for d in domains):
        return None
    points = reduce(isl.Set.union, [d.reset_tuple_id() for d in domains]).coalesce()
    steps = isl.Set.empty(points.get_space())
    for dependence in inside:
        steps = steps.union(dependence.relation.reset_tuple_id(IN).reset_tuple_id(OUT).deltas()).coalesce()
    for order in permutations(range(rank)):
        levels = _levels_in_order(domains[0], points, steps, order)
        if levels is not None:
            return levels
    return None


def _levels_in_order(named: isl.Set, points: isl.Set, steps: isl.Set, order: Sequence[int]) -> tuple[Level, ...] | None:
    levels = []
    for d in order:
        distances = _only(steps, d)
        direction = _direction(distances)
        if direction is None:
            return None
        rows = number_of(_only(points, d))
        levels.append(_level(named.get_dim_name(SET, d), rows, distances, direction))
        steps = steps.fix_val(SET, d, isl.Val(0))
    return tuple(levels)


def _time_level(system: System, layer: Layer, inside: Sequence[Dependence]) -> Level:
    """The points of a recurrence by their time: always lower triangular, or upper where time runs backwards."""
    times = layer.local.wave
    distances = reduce(isl.Set.union, [time_distances(system, d, times) for d in inside])
    maps = [(system.equation(name).domain, times[name]) for name in layer.group.core]
    values = reduce(
        isl.Set.union, [isl.Map.from_aff(time.aff(domain)).intersect_domain(domain).range() for domain, time in maps]
    )
    backwards = all(any(c < 0 for c in time.dims) and not any(c > 0 for c in time.dims) for _, time in maps)
    return _level("time", number_of(values.coalesce()), distances, "upper" if backwards else "lower")


def _level(over: str, rows: Count, distances: isl.Set, direction: Direction) -> Level:
    if direction == "diagonal":
        return Level(over, rows, direction, 0, "0")
    lengths = distances.neg() if direction == "upper" and over != "time" else distances
    longest = lengths.dim_max(0).coalesce()
    if (most := longest.max_val()).is_int():
        return Level(over, rows, direction, most.to_python(), str(most))
    formulas: list[str] = []
    longest.foreach_piece(lambda where, aff: formulas.append(aff_text(aff)))
    return Level(over, rows, direction, None, " or ".join(dict.fromkeys(formulas)))


def _layer_level(
    system: System, flow: Sequence[Dependence], layers: Sequence[Layer]
) -> tuple[Level | None, Sequence[Layer]]:
    """The matrix whose rows are the layers, and their order: that of the program where that is a triangle."""
    if len(layers) < 2:
        return None, layers
    names = [e.name for e in system.equations]
    for order in (sorted(layers, key=lambda layer: min(map(names.index, layer.group.core))), layers):
        place = {name: i for i, layer in enumerate(order) for name in layer.group.equations}
        edges = {(place[d.source], place[d.sink]) for d in flow if place[d.source] != place[d.sink]}
        steps = {sink - source for source, sink in edges}
        if not (steps and min(steps) < 0 < max(steps)):
            break
    width = max(map(abs, steps), default=0)
    direction: Direction = "diagonal" if not steps else "lower" if min(steps) > 0 else "upper"
    rows = number_of(isl.Set(f"{{ [i] : 0 <= i < {len(layers)} }}"))
    return Level("layers", rows, direction, width, str(width), len(edges)), order


def _direction(distances: isl.Set) -> Direction | None:
    """The direction in which all distances go; None for both."""
    space = distances.get_space()
    up = not distances.intersect(isl.Set.universe(space).lower_bound_val(SET, 0, isl.Val(1))).is_empty()
    down = not distances.intersect(isl.Set.universe(space).upper_bound_val(SET, 0, isl.Val(-1))).is_empty()
    return None if up and down else "lower" if up else "upper" if down else "diagonal"


def _only(points: isl.Set, dim: int) -> isl.Set:
    """One dimension of a set."""
    return points.project_out(SET, dim + 1, points.dim(SET) - dim - 1).project_out(SET, 0, dim)
