"""The points of a new equation, built dimension by dimension."""

from dataclasses import dataclass, field, replace

from torch_mlir import ir


@dataclass
class Points:
    """Dimensions and the expressions that are negative at no point."""

    count: int = 0
    constraints: list[ir.AffineExpr] = field(default_factory=list)

    def dim(self, last: ir.AffineExpr | int | None = None) -> ir.AffineExpr:
        """A new dimension from 0 to `last`, or as far as what is required later lets it."""
        dim = ir.AffineExpr.get_dim(self.count)
        self.count += 1
        self.constraints.append(dim)
        if last is not None:
            self.require(dim * -1 + last)
        return dim

    def require(self, expr: ir.AffineExpr) -> None:
        """Keep only the points where an expression is not negative."""
        self.constraints.append(expr)

    def copy(self) -> "Points":
        """The same points, for another equation."""
        return replace(self, constraints=list(self.constraints))
