"""Which systems can be run a chunk of steps after another, and what a chunk needs of the one before."""

from collections.abc import Sequence
from dataclasses import dataclass

import islpy as isl
from torch_mlir import ir

from parc.codegen.arrays import slope
from parc.errors import CompileError
from parc.poly.affine import SET
from parc.poly.model import Access, Boundary, Equation, System


class NoChunksError(CompileError):
    """A program cannot run in chunks of steps; the message says why, and where."""


@dataclass(frozen=True, eq=False)
class States:
    """One array of a system over time: step t writes its element `t + lead`."""

    name: str
    lead: int
    given: tuple[Boundary, ...]
    """The boundaries of its elements before `lead`, each one element."""

    def places(self) -> list[int]:
        """The elements that boundaries give."""
        return [_constant(b.op.attributes["to"].value.results[0]) or 0 for b in self.given]


def time_symbol(systems: Sequence[System]) -> str:
    """The symbol T such that all equations have the steps 0 <= t < T; NoChunksError when there is none."""
    if not systems:
        raise NoChunksError("the program has no recurrence that runs in chunks")
    for symbol in systems[0].symbols:
        if all(_runs_over(system, equation, symbol) for system in systems for equation in system.equations):
            return symbol
    equation = systems[0].equations[0]
    raise NoChunksError("not all equations run over the same steps, from 0 on", equation.op.location)


def states(system: System, symbol: str) -> dict[str, States]:
    """The arrays of a system by name; NoChunksError unless every step reads of them only steps before or its own."""
    position = system.symbols.index(symbol)
    found: dict[str, States] = {}
    for unknown in system.unknowns:
        writes = [w for e in system.equations for w in e.writes if w.array == unknown.name]
        leads = {_offset(w, position) for w in writes}
        lead = leads.pop() if len(leads) == 1 else None
        shape = unknown.op.attributes["shape"].value.results
        if lead is None or shape[0] != ir.AffineExpr.get_symbol(position) + lead or _names(shape[1:], position):
            raise NoChunksError(f"{unknown.name} does not have one element for each step", unknown.op.location)
        given = tuple(b for b in system.boundaries if b.target.array == unknown.name)
        for boundary in given:
            _check_boundary(boundary, lead, position)
        found[unknown.name] = States(unknown.name, lead, given)
    for equation in system.equations:
        for read in equation.reads:
            offset = _offset(read, position)
            if offset is None or offset > found[read.array].lead:
                raise NoChunksError(
                    f"{equation.name} reads {read.array} at a step that is not its own or one before", read.op.location
                )
    return found


def known_axis(read: Access, symbol: int) -> int | None:
    """The dimension of a known array that steps run along; None for what is the same in every step.

    NoChunksError when a step t reads another element than t.
    """
    results = read.op.attributes["at"].value.results
    moving = [d for d, e in enumerate(results) if slope(e, 0) != 0 or _names([e], symbol)]
    if not moving:
        return None
    if len(moving) > 1 or results[moving[0]] != ir.AffineExpr.get_dim(0):
        raise NoChunksError("a step reads an input at another step than its own", read.op.location)
    return moving[0]


def _runs_over(system: System, equation: Equation, symbol: str) -> bool:
    if equation.domain.dim(SET) != 1:
        return False
    steps = isl.Set(f"[{symbol}] -> {{ {equation.name}[t] : 0 <= t < {symbol} }}")
    return bool(equation.domain.is_equal(steps.intersect_params(system.context)))


def _offset(access: Access, symbol: int) -> int | None:
    """The k of an access to element t + k; None for any other."""
    map_ = access.op.attributes["at"].value
    if not len(map_.results):
        return None
    first, *rest = map_.results
    offset = _constant(first - ir.AffineExpr.get_dim(0))
    return None if any(slope(e, 0) != 0 or _names([e], symbol) for e in rest) else offset


def _check_boundary(boundary: Boundary, lead: int, symbol: int) -> None:
    to, of = (boundary.op.attributes[key].value for key in ("to", "of"))
    place = _constant(to.results[0]) if len(to.results) == 1 else None
    single = boundary.target.relation.domain().dim(SET) == 0
    if not single or place is None or not 0 <= place < lead or _names(of.results, symbol):
        raise NoChunksError(f"{boundary.target.array} is given at other steps than the first", boundary.op.location)


def _constant(expr: ir.AffineExpr) -> int | None:
    expr = expr.maybe_downcast()
    return int(expr.value) if isinstance(expr, ir.AffineConstantExpr) else None


def _names(exprs: Sequence[ir.AffineExpr], symbol: int) -> bool:
    """Does an expression use a symbol?"""
    name = f"s{symbol}"
    return any(name in _words(str(e)) for e in exprs)


def _words(text: str) -> list[str]:
    return "".join(c if c.isalnum() else " " for c in text).split()
