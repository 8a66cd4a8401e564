"""The accesses of a system turned around: who contributes to the cotangent of an element."""

from collections.abc import Sequence
from dataclasses import dataclass

import islpy as isl
from torch_mlir import ir

from parc.autodiff.equations import EquationAdjoint, Use
from parc.autodiff.sets import identity
from parc.autodiff.stores import Stored, Stores
from parc.errors import CompileError
from parc.poly.affine import as_function, to_map


@dataclass(frozen=True, eq=False)
class Link:
    """A contribution as its reader sees it: a stored value at `at(reader's point)`, then perhaps a product."""

    stored: Stored
    at: isl.MultiAff
    product: ir.Operation | None
    operand: int
    """Which operand of the product the stored value is."""


class Transposed:
    """Finds, for what is written at an access, the stored values that add up to its cotangent.

    `given` are the arrays that have a cotangent from outside of the system.
    """

    def __init__(self, adjoints: Sequence[EquationAdjoint], given: set[ir.Value], stores: Stores) -> None:
        self._uses: dict[ir.Value, list[Use]] = {}
        for use in (u for adjoint in adjoints for u in adjoint.uses if u.access is not None):
            self._uses.setdefault(use.array, []).append(use)
        self._given = given
        self._stores = stores

    def links(self, array: ir.Value, domain: isl.Set, access: ir.AffineMap, location: ir.Location) -> list[Link]:
        """Where the cotangent of `array[access(p)]`, for the points p of a domain, comes from."""
        return [self._link(use, domain, access, location) for use in self._uses.get(array, [])]

    def source(
        self, adjoint: EquationAdjoint, value: ir.Value, function: isl.MultiAff, domain: isl.Set
    ) -> tuple[EquationAdjoint, ir.Value, isl.MultiAff]:
        """Where a value of an adjoint equation at `function(p)`, p in `domain`, is first computed.

        Looks through equations that only hand on the one cotangent that they read.
        """
        while True:
            write = next((w for w, seed in adjoint.seeds.items() if seed == value), None)
            if write is None or write.operands[1] in self._given:
                return adjoint, value, function
            uses = self._uses.get(write.operands[1], [])
            if len(uses) != 1 or uses[0].product is not None:
                return adjoint, value, function
            use, points = uses[0], adjoint.forward.domain
            access = ir.AffineMapAttr(write.attributes["at"]).value
            onward = _turned(use, points, access, write.location)
            if onward is None:
                return adjoint, value, function
            # Where this equation has no point, there is no cotangent; so it has to be there too.
            beyond = domain.apply(isl.Map.from_multi_aff(function)).subtract(points)
            reached = beyond.apply(isl.Map.from_multi_aff(onward)).intersect(use.adjoint.forward.domain)
            if not reached.is_empty():
                return adjoint, value, function
            adjoint, value, function = use.adjoint, use.value, onward.pullback_multi_aff(function)

    def _link(self, use: Use, domain: isl.Set, access: ir.AffineMap, location: ir.Location) -> Link:
        assert use.access is not None
        function = _turned(use, domain, access, location)
        points = use.adjoint.forward.domain
        if function is not None:
            adjoint, value, function = self.source(use.adjoint, use.value, function, domain)
            index = identity(adjoint.forward.domain)
            at = index.pullback_multi_aff(function)
        else:
            adjoint, value = use.adjoint, use.value
            index, at = as_index(use.access, points, location), as_index(access, domain, location)
            if not isl.Map.from_multi_aff(index).intersect_domain(points).is_injective():
                raise CompileError(
                    f"cannot differentiate {adjoint.name}: several of its points read one element of an array that "
                    "the same loop makes; read it outside of the loop",
                    location,
                )
        operand = list(use.product.operands).index(use.value) if use.product is not None else 0
        return Link(self._stores.of(adjoint, value, index, domain, at), at, use.product, operand)


def as_index(access: ir.AffineMap, domain: isl.Set, location: ir.Location) -> isl.MultiAff:
    """An access map as a function on the whole space of a domain."""
    function = as_function(to_map(access, isl.Set.universe(domain.get_space()), "", location=location))
    if function is None:
        raise CompileError(f"cannot differentiate: the access {access} is not one affine function", location)
    return function


def _turned(use: Use, points: isl.Set, write: ir.AffineMap, location: ir.Location) -> isl.MultiAff | None:
    """For each point the one that reads what it defines at `write`; None where that is no function."""
    assert use.access is not None
    if len(use.access.results) != len(write.results):
        raise CompileError(
            f"cannot differentiate: an array is defined at {write} and read at {use.access}, with other indices",
            location,
        )
    readers = isl.Set.universe(use.adjoint.forward.domain.get_space())
    reads = to_map(use.access, readers, "", location=location)
    writes = to_map(write, isl.Set.universe(points.get_space()), "", location=location)
    turned = writes.apply_range(reads.reverse())
    return as_function(turned) if points.is_subset(turned.domain()) else None
