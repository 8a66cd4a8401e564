"""The proof that sweeps over x = step(x) come to an end, for all sizes of a program; and whether it still holds."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor
from torch_mlir import ir
from torch_mlir.dialects import func

from parc.errors import CompileError
from parc.triangular.dependences import Dependences, dependences
from parc.triangular.given import Given, taken_from


@dataclass(frozen=True, eq=False)
class Proof:
    """The dependences of a program at the sizes that it was traced at, and the bound that follows for all sizes."""

    module: ir.Module
    """The traces."""
    symbols: tuple[str, ...]
    sizes: tuple[tuple[int, ...], ...]
    """The symbols' values in each trace."""
    given: tuple[Given, ...]
    """What was taken from the parameters."""
    traces: tuple[Dependences, ...]
    coefficients: tuple[int, ...] | None
    """Of the symbols in the bound, and a constant; None where it is no affine function of the sizes."""

    @staticmethod
    def of(module: ir.Module, parameters: Sequence[Tensor]) -> "Proof":
        """The proof for a module of traces, whose first argument is x and first result step(x).

        CompileError where elements depend on each other.
        """
        attributes = module.operation.attributes
        symbols = tuple(ir.StringAttr(s).value for s in attributes["parc.symbols"])
        functions = [f for f in module.body.operations if isinstance(f, func.FuncOp) and "parc.trace" in f.attributes]
        sizes = tuple(tuple(ir.IntegerAttr(v).value for v in f.attributes["parc.trace"]) for f in functions)
        given = tuple(taken_from(parameters))
        traces = tuple(dependences(f, given) for f in functions)
        coefficients = _affine(sizes, [t.bound for t in traces])
        return Proof(module, symbols, sizes, given, traces, coefficients)

    @property
    def rows_independent(self) -> bool:
        """Does no element depend on one with another first index, at any of the sizes?"""
        return all(t.rows_independent for t in self.traces)

    @property
    def smallest(self) -> Dependences:
        """The dependences at the smallest sizes."""
        return self.traces[0]

    def bound(self) -> ir.AffineMap:
        """The number of levels as a function of the symbols; needs a current context.

        CompileError where it is not affine.
        """
        if self.coefficients is None:
            raise CompileError(
                f"how many levels there are is no affine function of the sizes ({self.bound_text()}): fix sizes with "
                "dynamic_shapes"
            )
        *slopes, constant = self.coefficients
        total = ir.AffineExpr.get_constant(constant)
        for n, slope in enumerate(slopes):
            total = total + ir.AffineExpr.get_symbol(n) * slope
        return ir.AffineMap.get(0, len(slopes), [total])

    def bound_text(self) -> str:
        """The number of levels for people: `64`, or `T + 1`; where it is not affine, what it is at the traced sizes."""
        if self.coefficients is None:
            found = []
            for trace, sizes in zip(self.traces, self.sizes, strict=True):
                at = ", ".join(f"{symbol}={size}" for symbol, size in zip(self.symbols, sizes, strict=True))
                found.append(f"{trace.bound} for {at}")
            return "; ".join(found)
        *slopes, constant = self.coefficients
        terms = [s if c == 1 else f"{c} {s}" for s, c in zip(self.symbols, slopes, strict=True) if c]
        return " + ".join([*terms, str(constant)] if constant > 0 or not terms else terms) + (
            f" - {-constant}" if constant < 0 and terms else ""
        )

    def holds_for(self, parameters: Sequence[Tensor]) -> bool:
        """Whether what the proof takes from the parameters is true of these."""
        return all(g.holds_for(t) for g, t in zip(self.given, parameters, strict=True))

    def exceeds(self, other: "Proof") -> bool:
        """Is the bound larger than another one of the same traces, at some of them?"""
        return any(mine.bound > theirs.bound for mine, theirs in zip(self.traces, other.traces, strict=True))

    def with_bound_of(self, other: "Proof") -> "Proof":
        """The proof of a bound that is no smaller."""
        return replace(self, coefficients=other.coefficients)

    def again(self, parameters: Sequence[Tensor]) -> "Proof":
        """The proof with other parameters."""
        return Proof.of(self.module, parameters)


def _affine(sizes: Sequence[Sequence[int]], values: Sequence[int]) -> tuple[int, ...] | None:
    """The whole coefficients of the affine function that has these values at these sizes; None where none has."""
    rows = np.array([[*at, 1] for at in sizes], float)
    solution = np.rint(np.linalg.lstsq(rows, np.asarray(values, float), rcond=None)[0])
    return tuple(int(c) for c in solution) if np.array_equal(rows @ solution, values) else None
