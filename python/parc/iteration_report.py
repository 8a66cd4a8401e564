"""The iterations of a scheduled module: the part of a report that says what is solved by sweeps, and how."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch_mlir import ir

from parc.codegen.irtools import constant_int, defining_op, walk
from parc.iteration import Iterations
from parc.poly.formula import Number
from parc.read_module import read_extent


@dataclass(frozen=True)
class IterationReport:
    """One iteration: sweeps over arrays until nothing changes."""

    name: str
    solver: str
    arrays: tuple[str, ...]
    """What is swept over, by the names that `parc.Module.start_from` takes where it starts from the last solution."""
    bound: Number | None
    """After so many sweeps the arrays are exact in exact arithmetic, whatever they started from; None if not known."""
    limit: int | None
    """The most sweeps, where they are fewer than the bound."""
    tolerance: float
    """It ends after the sweep in which no element changes by more."""
    start: str
    """"zeros", "previous", or empty where the module does not say."""
    has_exact: bool
    """Whether there is code that computes step by step what has not converged."""
    why: str
    blocks: tuple[str, ...] = ()
    """What of a network is swept over together, and when it is final: `conv1: 1 layer, final after 1 sweep`."""
    waves: Number | None = None
    """Of the systems in one sweep, the first; None where it has none."""
    last: Iterations | None = None
    """How it went in the last call, of any sizes; None where there was none."""

    def __str__(self) -> str:
        bound = "not known" if self.bound is None else f"{self.bound} sweeps, after which it is exact"
        limit = "the bound" if self.limit is None else f"{self.limit} sweeps, where that is less"
        if self.has_exact:
            limit += "; what has not converged by then is computed step by step"
        lines = [
            f"Iteration {self.name}: {self.solver}, over {', '.join(self.arrays)}",
            f"  Sweep      {self.waves} waves" if self.waves is not None else "",
            f"  Bound      {bound}",
            f"  Limit      {limit}",
            f"  Tolerance  {self.tolerance:g}: the last sweep changes no element by more",
            f"  Start      {_STARTS.get(self.start, self.start)}" if self.start else "",
            f"  Last call  {self.last}" if self.last is not None else "",
            f"  Why        {self.why}" if self.why else "",
            *(["  Blocks"] if self.blocks else []),
            *(f"    {block}" for block in self.blocks),
        ]
        return "\n".join(filter(None, lines))


_OTHER = 16
"""What sizes are taken for that nothing is known about."""
_STARTS = {"previous": "what the last call of the same sizes ended with, or a guess (start_from)"}


def explain_iterations(module: ir.Module, sizes: Mapping[str, int]) -> tuple[IterationReport, ...]:
    """All iterations of a module, numbers at these sizes of the symbols; needs a current MLIR context."""
    return tuple(_explain(op.operation, sizes) for op in walk(module.operation, "parc.iterate"))


def sweep_of(op: ir.Operation) -> tuple[str, bool] | None:
    """The iteration that an operation belongs to, by name, and whether to its sweeps; else to what comes after them.

    None outside of iterations; the innermost of several.
    """
    while (parent := op.parent) is not None:
        parent = parent.operation
        if parent.name == "parc.iterate":
            return _text(parent, "name"), op.block == parent.regions[0].blocks[0]
        op = parent
    return None


def _explain(op: ir.Operation, sizes: Mapping[str, int]) -> IterationReport:
    body, otherwise = op.regions
    arrays = [m.operation for m in body.blocks[0].operations if m.operation.name == "parc.previous"]
    name, bound, limit = _text(op, "name"), _bound(op, sizes), _limit(op.operands[0])
    if bound is not None and limit is not None and bound.formula.isdigit() and bound <= limit:
        limit = None
    return IterationReport(
        name=name,
        solver=_text(op, "solver"),
        arrays=tuple(f"{name}.{_text(a, 'name')}" for a in arrays if not _is_number(a.results[0].type)),
        bound=bound,
        limit=limit,
        tolerance=ir.FloatAttr(op.attributes["tolerance"]).value,
        start=_text(op, "start"),
        has_exact=len(otherwise.blocks) > 0,
        why=_text(op, "why"),
        blocks=tuple(ir.StringAttr(b).value for b in op.attributes["blocks"]) if "blocks" in op.attributes else (),
    )


def _is_number(type_: ir.RankedTensorType) -> bool:
    """Is it a single number, such as a solver keeps beside the arrays?"""
    return type_.has_static_shape and all(extent == 1 for extent in type_.shape)


def _bound(op: ir.Operation, sizes: Mapping[str, int]) -> Number | None:
    """None where there is no bound."""
    symbols = tuple(ir.StringAttr(s).value for s in op.attributes["symbols"]) if "symbols" in op.attributes else ()
    if "bound" not in op.attributes:
        return None
    (expr,) = ir.AffineMapAttr(op.attributes["bound"]).value.results
    extent = read_extent(expr, symbols)
    return Number(extent.at([sizes.get(s, _OTHER) for s in symbols]), extent.text)


def _limit(value: ir.Value) -> int | None:
    """The constant that a number of sweeps is at most, where it is written as one."""
    if (constant := constant_int(value)) is not None:
        return constant
    op = defining_op(value)
    if op is None or op.operation.name not in ("arith.minsi", "arith.minui"):
        return None
    return min((n for v in op.operation.operands if (n := _limit(v)) is not None), default=None)


def _text(op: ir.Operation, key: str) -> str:
    return ir.StringAttr(op.attributes[key]).value if key in op.attributes else ""
