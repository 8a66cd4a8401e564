"""The extents of values inside a `parc.system` as expressions of its symbols."""

from collections.abc import Sequence
from functools import reduce
from operator import add, mul

from torch_mlir import ir

from parc.codegen.extents import Extents
from parc.codegen.irtools import defining_op
from parc.codegen.sizes import affine_of, substitute
from parc.errors import CompileError


def extents_of(value: ir.Value, system: ir.Operation) -> list[ir.AffineExpr]:
    """The extents of a tensor; raises `CompileError` where what defines it does not say them."""
    return _Symbolic(system).of(value)


class _Symbolic(Extents[ir.AffineExpr]):
    """Affine expressions, or products of such, in the symbols of one system."""

    def __init__(self, system: ir.Operation) -> None:
        self._system = system
        self._symbols = {v: i for i, v in enumerate(system.operands)}

    def number(self, size: int) -> ir.AffineExpr:
        return ir.AffineExpr.get_constant(size)

    def named(self, size: ir.Value) -> ir.AffineExpr:
        expr = affine_of(size, self._symbols)
        if expr is None:
            raise self._error(size)
        return expr.maybe_downcast()

    def sum(self, terms: Sequence[ir.AffineExpr]) -> ir.AffineExpr:
        return reduce(add, terms).maybe_downcast()

    def product(self, factors: Sequence[ir.AffineExpr]) -> ir.AffineExpr:
        return reduce(mul, factors, self.number(1)).maybe_downcast()

    def apply(self, shape: ir.AffineMap, symbols: Sequence[ir.Value]) -> list[ir.AffineExpr]:
        places = [affine_of(s, self._symbols) for s in symbols]
        found = []
        for expr in shape.results:
            extent = substitute(expr, (), places)
            if extent is None:
                raise CompileError("a shape is in terms of what is no symbol of the system", self._system.location)
            found.append(extent.maybe_downcast())
        return found

    def unknown(self, value: ir.Value) -> list[ir.AffineExpr]:
        raise self._error(value)

    def _error(self, value: ir.Value) -> CompileError:
        op = defining_op(value)
        what = "an argument" if op is None else f"a value of '{op.operation.name}'"
        where = self._system.location if op is None else op.operation.location
        return CompileError(f"cannot express the shape of {what} in the system's symbols", where)
