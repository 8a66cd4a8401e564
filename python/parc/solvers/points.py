"""The points of a new equation, built dimension by dimension."""

from dataclasses import dataclass, field, replace

from torch_mlir import ir

from parc.solvers.recurrence import Recurrence


@dataclass
class Points:
    """Dimensions and the expressions that are negative at no point."""

    count: int = 0
    constraints: list[ir.AffineExpr] = field(default_factory=list)

    def dim(self, stop: ir.AffineExpr | int | None = None, first: int = 0) -> ir.AffineExpr:
        """A new dimension from `first` up to `stop`, or as far as what is required later lets it.

        A constant where these numbers leave one value.
        """
        if stop == first + 1:
            return ir.AffineExpr.get_constant(first)
        dim = ir.AffineExpr.get_dim(self.count)
        self.count += 1
        self.require(dim - first)
        if stop is not None:
            self.require(dim * -1 + (stop - 1))
        return dim

    def others(self, recurrence: Recurrence) -> tuple[list[ir.AffineExpr], list[ir.AffineExpr]]:
        """Dimensions for those that the recurrence does not run along: counted from zero, and in its domain."""
        leading = [self.dim(stop - start) for start, stop in recurrence.others]
        return leading, [start + dim for (start, _), dim in zip(recurrence.others, leading, strict=True)]

    def require(self, expr: ir.AffineExpr) -> None:
        """Keep only the points where an expression is not negative."""
        self.constraints.append(expr)

    def copy(self) -> "Points":
        """The same points, for another equation."""
        return replace(self, constraints=list(self.constraints))
