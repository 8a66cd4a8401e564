"""Recognises an affine recurrence along one dimension of an equation's domain."""

from collections.abc import Sequence
from dataclasses import dataclass

import islpy as isl
from torch_mlir import ir

from parc.errors import CompileError
from parc.poly.affine import IN, SET, from_aff
from parc.poly.dependences import Dependence
from parc.poly.groups import strong_components
from parc.poly.model import Equation, System
from parc.solvers.affine import AffineBody


@dataclass(frozen=True, eq=False)
class Recurrence:
    """`x[p] = A[p] x[p - 1] + b[p]` for `0 <= p < length`, for each point of the other dimensions."""

    equation: Equation
    body: AffineBody
    read: ir.Operation
    """A `parc.read` of the state x[p - 1]; all of them are alike."""
    write: ir.Operation
    results: tuple[ir.Operation, ...]
    """Every other `parc.write` of the equation."""
    over: int
    """The dimension of the domain that p counts along."""
    first: ir.AffineExpr
    """Where p = 0, in terms of the symbols."""
    step: int
    """1 or -1: how that dimension moves with p."""
    length: ir.AffineExpr
    others: tuple[tuple[ir.AffineExpr, ir.AffineExpr], ...]
    """First and last + 1 index of every other dimension, in order."""

    @property
    def array(self) -> ir.Value:
        """The unknown array that holds the state."""
        return self.write.operands[1]

    def point(self, position: ir.AffineExpr, others: Sequence[ir.AffineExpr]) -> list[ir.AffineExpr]:
        """The coordinates of a position."""
        along = self.first + position * self.step
        return [*others[: self.over], along, *others[self.over :]]


def cycles(system: System, flow: Sequence[Dependence]) -> list[tuple[str, ...]]:
    """The equations that need each other or themselves, by strongly connected component."""
    edges = {(d.source, d.sink) for d in flow}
    found = strong_components([e.name for e in system.equations], edges)
    return [names for names in found if len(names) > 1 or (names[0], names[0]) in edges]


def recognise(system: System, flow: Sequence[Dependence], name: str, over: str = "") -> Recurrence:
    """The recurrence of an equation that needs itself; CompileError, with the reason, where it is not affine.

    over: the domain's dimension that the recurrence has to run along, by name; any when empty.  Needs a current MLIR
    context.
    """
    equation = system.equation(name)
    where = equation.op.location
    own = [d for d in flow if d.source == name and d.sink == name]
    arrays = list(dict.fromkeys(d.array for d in own))
    if len(arrays) > 1:
        texts = " and ".join(arrays)
        raise CompileError(f"the equation {name} is no recurrence of one state: it needs itself through {texts}", where)
    distances = {distance_of(equation, d) for d in own}
    distance = distances.pop()
    moving = [i for i, d in enumerate(distance) if d]
    if distances or len(moving) != 1 or abs(distance[moving[0]]) != 1:
        texts = " and ".join(str(list(d)) for d in sorted({distance, *distances}))
        raise CompileError(
            f"the equation {name} is no recurrence along one dimension: it needs itself at the distance {texts}", where
        )
    dimension, step = moving[0], distance[moving[0]]
    names = [equation.domain.get_dim_name(SET, i) or f"i{i}" for i in range(equation.domain.dim(SET))]
    if over and names[dimension] != over:
        raise CompileError(f"the equation {name} runs along {names[dimension]}, not along {over}", where)
    bounds = bounds_of(system, equation)
    low, high = bounds[dimension]
    reads = [d.read.op for d in own]
    write = next(w.op for w in equation.writes if w.array == arrays[0])
    body = AffineBody(equation.op, [r.results[0] for r in reads], write.operands[0])
    return Recurrence(
        equation=equation,
        body=body,
        read=reads[0],
        write=write,
        results=tuple(w.op for w in equation.writes if w.op != write),
        over=dimension,
        first=low if step == 1 else high - 1,
        step=step,
        length=high - low,
        others=tuple(b for i, b in enumerate(bounds) if i != dimension),
    )


def distance_of(equation: Equation, dependence: Dependence) -> tuple[int, ...]:
    """Sink minus source of a dependence of an equation on itself; CompileError where that is not constant."""
    relation = dependence.relation.reset_tuple_id(IN).reset_tuple_id(isl.dim_type.out)
    distances = relation.deltas()
    found = []
    for i in range(distances.dim(SET)):
        low, high = distances.dim_min_val(i), distances.dim_max_val(i)
        if not (low.is_int() and low.eq(high)):
            text = f"it needs itself at the distances {distances.gist_params(distances.params())}"
            message = f"the equation {equation.name} is no recurrence along one dimension: {text}"
            raise CompileError(message, equation.op.location)
        found.append(low.to_python())
    return tuple(found)


def bounds_of(system: System, equation: Equation) -> list[tuple[ir.AffineExpr, ir.AffineExpr]]:
    """First and last + 1 index of every dimension; CompileError unless the domain is a product of intervals."""
    domain = equation.domain.gist_params(system.context).reset_tuple_id()
    box, bounds = isl.Set.universe(domain.get_space()), []
    for i in range(domain.dim(SET)):
        only = domain.project_out(SET, i + 1, domain.dim(SET) - i - 1).project_out(SET, 0, i)
        low, high = _affine(only.dim_min(0)), _affine(only.dim_max(0))
        if low is None or high is None:
            raise CompileError(f"the domain of {equation.name} is not bounded by one expression", equation.op.location)
        bounds.append((from_aff(low), from_aff(high) + 1))
        box = box.intersect(only.insert_dims(SET, 0, i).add_dims(SET, domain.dim(SET) - i - 1))
    if not box.is_subset(domain):
        raise CompileError(f"the domain of {equation.name} is no product of intervals", equation.op.location)
    return bounds


def _affine(function: isl.PwAff) -> isl.Aff | None:
    pieces: list[isl.Aff] = []
    function.foreach_piece(lambda _, piece: pieces.append(piece))
    return pieces[0] if len(pieces) == 1 else None
