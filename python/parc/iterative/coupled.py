"""One step of a recurrence as one equation, however many equations and states it has.

    h[t + 1] = f(h[t], c[t], x[t]),   c[t + 1] = g(h[t], c[t], x[t])

Stages that a step hands on to itself (the reset gate's product of a cell) are put into the equations that read them,
and equations that need each other one step back become one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import islpy as isl
from torch_mlir import ir

from parc.autodiff.tangent import is_bare
from parc.codegen.irtools import clone_with
from parc.errors import CompileError
from parc.iterative.depth import constant_distance, find_depth
from parc.poly.dependences import dependences
from parc.poly.groups import strong_components
from parc.poly.model import System, build
from parc.solvers.inline import can_inline, erase_unread, inline
from parc.solvers.recurrence import cycles, distance_of


@dataclass(frozen=True, eq=False)
class State:
    """A value that a step takes as the one before it left it: an array, or several that get the same value."""

    reads: tuple[ir.Operation, ...]
    """The `parc.read`s of it."""
    writes: tuple[ir.Operation, ...]

    @property
    def name(self) -> str:
        """Of its first array."""
        return self.names[0]

    @property
    def names(self) -> list[str]:
        """Of its arrays."""
        return [ir.StringAttr(array.owner.attributes["name"]).value for array in self.arrays]

    @property
    def arrays(self) -> list[ir.Value]:
        return [write.operands[1] for write in self.writes]

    @property
    def value(self) -> ir.Value:
        """What the step computes for it."""
        return self.writes[0].operands[0]

    @property
    def tile(self) -> ir.RankedTensorType:
        return ir.RankedTensorType(self.value.type)

    @property
    def units(self) -> int:
        """The elements of a row."""
        return 1 if is_bare(self.tile) else int(self.tile.shape[-1])


@dataclass(frozen=True, eq=False)
class Step:
    """A recurrence of one equation over some states."""

    equation: ir.Operation
    name: str
    """Of an equation of the given system that has the same coordinates."""
    points: isl.Set
    """Where all of its states are computed; some may go on alone behind it."""
    states: tuple[State, ...]


def single_step(system: System) -> Step:
    """The recurrence of a system that has one, whose equations are rewritten; CompileError where it is none.

    All states are needed one step back, along one dimension, and have tiles of one shape but for their units.  Needs a
    current MLIR context; the model of the system is out of date afterwards.
    """
    system = _without_stages(system)
    flow = dependences(system)
    (names,) = cycles(system, flow)
    if len(names) > 1:
        system = _merged(system, names)
        flow = dependences(system)
        (names,) = cycles(system, flow)
    (name,) = names
    equation = system.equation(name)
    own = [d for d in flow if d.source == name and d.sink == name]
    distances = {distance_of(equation, d) for d in own}
    distance = next(iter(distances))
    if len(distances) > 1 or sum(map(abs, distance)) != 1:
        texts = " and ".join(str(list(d)) for d in sorted(distances))
        raise CompileError(
            f"Newton's method needs the state one step back along one dimension, and {name} needs itself at the "
            f"distance {texts}",
            equation.op.location,
        )
    states: dict[ir.Value, State] = {}
    for array in dict.fromkeys(d.array for d in own):
        reads = tuple(d.read.op for d in own if d.array == array)
        write = next(w.op for w in equation.writes if w.array == array)
        before = states.get(write.operands[0], State((), ()))
        states[write.operands[0]] = State((*before.reads, *reads), (*before.writes, write))
    _check_tiles(list(states.values()), equation.op)
    return Step(equation.op, name, equation.domain, tuple(states.values()))


def _without_stages(system: System) -> System:
    """Put what equations of the recurrence compute for the same step into those that read it."""
    while True:
        flow = dependences(system)
        (names,) = cycles(system, flow)
        inside = [d for d in flow if d.source in names and d.sink in names]
        depth = find_depth(system, flow)
        here = [d for d in inside if d.source != d.sink and constant_distance(system, d, depth) == 0]
        order = [n for (n,) in strong_components(list(names), {(d.source, d.sink) for d in here})]
        first = next((n for n in order if any(d.source == n for d in here)), None)
        if first is None:
            return system
        for dependence in here:
            if dependence.source == first and not can_inline(system, dependence):
                raise CompileError(
                    f"the steps of {first} and {dependence.sink} cannot be made one", dependence.read.op.location
                )
        for dependence in here:
            if dependence.source == first:
                inline(system, dependence)
        erase_unread(system, first)
        system = build(system.op)


def _merged(system: System, names: Sequence[str]) -> System:
    """Make one equation of several, at the points that all of them have."""
    equations = [system.equation(name) for name in names]
    shared = {e.name: e.domain.set_tuple_name(names[0]) for e in equations}
    first = next((e for e in equations if all(shared[e.name].is_subset(s) for s in shared.values())), None)
    if first is None:
        raise CompileError(
            f"{', '.join(names)} need each other, at points that are not the same", equations[0].op.location
        )
    block = first.op.regions[0].blocks[0]
    for other in equations:
        if other is first:
            continue
        old = other.op.regions[0].blocks[0]
        values: dict[ir.Value, ir.Value] = dict(zip(old.arguments, block.arguments, strict=True))
        with ir.InsertionPoint(block):
            for op in old.operations:
                clone_with(op, values)
        other.op.erase()
    return build(system.op)


def _check_tiles(states: Sequence[State], equation: ir.Operation) -> None:
    for state in states:
        tile = state.tile
        if not isinstance(tile.element_type, ir.FloatType):
            raise CompileError(f"{state.name} has no derivative: its tiles are {tile}", equation.location)
        first = states[0].tile
        if _rows(tile) != _rows(first) or tile.element_type != first.element_type:
            raise CompileError(
                f"{states[0].name} and {state.name} need each other, and their tiles {first} and {tile} differ in more "
                "than their units",
                equation.location,
            )


def _rows(tile: ir.RankedTensorType) -> list[int]:
    return list(tile.shape if is_bare(tile) else tile.shape[:-1])
