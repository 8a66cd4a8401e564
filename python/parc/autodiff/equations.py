"""An equation and its adjoint, and what the adjoint contributes to the cotangents of others."""

from collections.abc import Container, Sequence
from dataclasses import dataclass, field

from torch_mlir import ir

from parc.autodiff import cut
from parc.autodiff.emit import total
from parc.autodiff.extents import Sizes
from parc.autodiff.irtools import body_of, is_outside
from parc.codegen.irtools import captured_values
from parc.poly.model import Equation


@dataclass(eq=False)
class EquationAdjoint:
    """One equation and its adjoint."""

    forward: Equation
    op: ir.Operation
    copies: dict[ir.Value, ir.Value]
    """Value of the forward body -> its copy in the adjoint's."""
    seeds: dict[ir.Operation, ir.Value] = field(default_factory=dict)
    """`parc.write` of the forward body -> a stand-in for the cotangent of what it writes."""
    uses: list["Use"] = field(default_factory=list)
    recomputed: list[str] = field(default_factory=list)
    """What the adjoint computes again of the forward body (`words`)."""

    @property
    def name(self) -> str:
        return self.forward.name


@dataclass(eq=False)
class Use:
    """A cotangent that an equation contributes to what it read at `access`; `None` for a captured value."""

    adjoint: EquationAdjoint
    array: ir.Value
    access: ir.AffineMap | None
    value: ir.Value
    product: ir.Operation | None = None
    """The product that makes the contribution from `value`, where there is one."""


def uses_of(
    adjoint: EquationAdjoint, original: ir.Value, parts: Sequence[ir.Value], unknowns: Container[ir.Value]
) -> list[Use]:
    """The contributions to one read or captured value; those that are no products are added up."""
    array, access = original, None
    if not is_outside(original, body_of(adjoint.forward.op)):
        array, access = original.owner.operands[0], ir.AffineMapAttr(original.owner.attributes["at"]).value
    block, found, plain = body_of(adjoint.op), [], []
    for part in parts:
        product = part.owner.operation
        varying = [v for v in captured_values(product) if not is_outside(v, block)]
        lifted = access is None or array not in unknowns
        if len(varying) == 1 and cut.is_costly(product) and not lifted:
            found.append(Use(adjoint, array, access, varying[0], product))
        elif lifted:
            found.append(Use(adjoint, array, access, part))
        else:
            plain.append(part)
    if plain:
        found.append(Use(adjoint, array, access, total(plain, Sizes())))
    return found
