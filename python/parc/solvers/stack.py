"""Recognises a stack of affine recurrences: each layer's input is the state of the layer below at the same step.

    x[l, t] = F[l, t] x[l, t - 1] + G[l, t] x[l - 1, t] + b[l, t]

Both matrices of the system are bidiagonal, in the layers and in time (M. Naumov, Parallel Complexity of Forward and
Backward Propagation, 2017, section 4).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

from torch_mlir import ir

from parc.errors import CompileError
from parc.poly.affine import from_aff
from parc.poly.dependences import Dependence, dependences
from parc.poly.groups import strong_components
from parc.poly.model import System, build
from parc.solvers.affine import AffineBody
from parc.solvers.cut import needed
from parc.solvers.inline import can_inline, erase_unread, inline, source_point
from parc.solvers.recurrence import Recurrence, cycles, recognise


@dataclass(frozen=True, eq=False)
class Layer:
    """One recurrence of a stack."""

    recurrence: Recurrence
    below: tuple[ir.Value, ...]
    """The tiles read of the layer below; none in the lowest layer."""
    passed: AffineBody | None
    """The body as a function of these."""
    joint: AffineBody
    """The body as a function of these and the layer's own state."""


def stacks(system: System, flow: Sequence[Dependence], names: Sequence[str], over: str) -> list[tuple[str, ...]]:
    """The given recurrences, sources before sinks, as stacks: each is as high as it can be."""
    found: list[list[Recurrence]] = []
    for name in names:
        recurrence = recognise(system, flow, name, over)
        if found and _is_above(recurrence, found[-1], flow):
            found[-1].append(recurrence)
        else:
            found.append([recurrence])
    return [tuple(_names(stack)) for stack in found]


def layers(system: System, flow: Sequence[Dependence], names: Sequence[str]) -> list[Layer]:
    """The layers of a stack."""
    found: list[Layer] = []
    for name in names:
        recurrence = recognise(system, flow, name)
        below = [d.read.op.results[0] for d in flow if d.sink == name and d.source != name and d.source in names]
        result = recurrence.body.result
        passed = AffineBody(recurrence.equation.op, below, result) if below else None
        found.append(Layer(recurrence, tuple(below), passed, _joint(recurrence, below)))
    return found


def fold(system: System, recurrences: Sequence[str]) -> System:
    """Put what is computed between recurrences into the ones that read it, so that each reads the one below."""
    flow = dependences(system)
    before = needed(flow, recurrences)
    # Other recurrences stay as they are: what lies behind one is a stack of its own.
    kept = {*recurrences, *chain.from_iterable(cycles(system, flow))}
    between = [
        e.name for e in system.equations if e.name in before - kept and needed(flow, [e.name]) & set(recurrences)
    ]
    edges = {(d.source, d.sink) for d in flow if d.source in between and d.sink in between}
    for (name,) in strong_components(between, edges):
        into = [d for d in dependences(system) if d.source == name and d.sink in (*between, *recurrences)]
        if all(can_inline(system, d) for d in into):
            for dependence in into:
                inline(system, dependence)
            erase_unread(system, name)
            system = build(system.op)
    return system


def _is_above(recurrence: Recurrence, stack: Sequence[Recurrence], flow: Sequence[Dependence]) -> bool:
    """Is a recurrence the next layer of a stack: like the others, and reads of them its last layer only?"""
    below, names = stack[-1], _names(stack)
    read = [d for d in flow if d.sink == recurrence.equation.name and d.source in names]
    others = needed(flow, [recurrence.equation.name], names)
    return (
        (recurrence.first, recurrence.step, recurrence.length) == (below.first, below.step, below.length)
        and recurrence.body.result.type == below.body.result.type
        and not recurrence.others
        and not below.others
        and bool(read)
        and all(d.source == below.equation.name and _is_same_step(d, below) for d in read)
        and not any(d.source in names for d in flow if d.sink in others)
        and _is_affine(recurrence, [d.read.op.results[0] for d in read])
    )


def _joint(recurrence: Recurrence, below: Sequence[ir.Value]) -> AffineBody:
    """The body as a function of its own state and of the tiles read of the layer below."""
    return AffineBody(recurrence.equation.op, [*recurrence.body.states, *below], recurrence.body.result)


def _is_affine(recurrence: Recurrence, below: Sequence[ir.Value]) -> bool:
    """Is a layer affine in both states together?  One whose gates depend on the layer below is not."""
    try:
        _joint(recurrence, below)
    except CompileError:
        return False
    return True


def _names(stack: Sequence[Recurrence]) -> list[str]:
    return [r.equation.name for r in stack]


def _is_same_step(dependence: Dependence, below: Recurrence) -> bool:
    """Is the state of `below` read at the reader's own step?"""
    point = source_point(dependence)
    is_state = dependence.read.op.operands[0] == below.array
    return is_state and point is not None and from_aff(point.get_at(0)) == ir.AffineExpr.get_dim(0)
