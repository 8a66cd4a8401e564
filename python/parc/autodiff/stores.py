"""Values of adjoint equations that the adjoint system keeps in unknown arrays."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import islpy as isl
from torch_mlir import ir

from parc.autodiff.emit import empty_of, filled
from parc.autodiff.equations import EquationAdjoint
from parc.autodiff.irtools import body_of, create_unknown, take_out
from parc.autodiff.sets import affine_map, identity, integer_sets
from parc.autodiff.stacks import affine_extents, size_value
from parc.errors import CompileError
from parc.poly.affine import SET
from parc.poly.boxes import Box, bounding_box, on_space
from parc.poly.model import build


@dataclass(eq=False)
class Stored:
    """A value of an adjoint equation, kept at all its points in an unknown array of the adjoint system.

    It has its box and arrays from `Stores.emit` on.
    """

    adjoint: EquationAdjoint
    value: ir.Value
    index: isl.MultiAff
    name: str
    needed: list[isl.Set] = field(default_factory=list)
    box: Box = field(init=False)
    """All points that write the value or read it."""
    array: ir.Value = field(init=False)
    """The `parc.unknown`."""
    solved: ir.Value = field(init=False)
    """The array behind the system."""

    def moved(self, index: isl.MultiAff) -> isl.MultiAff:
        """An index function counted from the first element."""
        for i, start in enumerate(self.box.lower):
            aff = index.get_aff(i)
            index = index.set_aff(i, aff.sub(on_space(aff.get_domain_space(), start)))
        return index

    @property
    def written(self) -> isl.Set:
        return self.adjoint.forward.domain.apply(isl.Map.from_multi_aff(self.index))


class Stores:
    """The stored values of one adjoint system: first they are asked for, then `emit` gives them their arrays."""

    def __init__(self, context: isl.Set, symbols: Sequence[ir.Value]) -> None:
        self._context = context
        self._symbols = list(symbols)
        self._stored: dict[tuple[str, ir.Value, str], Stored] = {}

    def of(
        self, adjoint: EquationAdjoint, value: ir.Value, index: isl.MultiAff, readers: isl.Set, at: isl.MultiAff
    ) -> Stored:
        """The value at all points of its equation, stored at `index`; `readers` find it at `at`."""
        key = (adjoint.name, value, str(index))
        if key not in self._stored:
            count = sum(k[0] == adjoint.name for k in self._stored)
            self._stored[key] = Stored(adjoint, value, index, f"{adjoint.name}_d{count}")
        self._stored[key].needed.append(readers.apply(isl.Map.from_multi_aff(at)))
        return self._stored[key]

    def emit(self, system: ir.Operation) -> ir.InsertionPoint:
        """Add the arrays, their zeros and the writes to the system, and take them out; the place behind that."""
        following = ir.InsertionPoint.after(system)
        for stored in self._stored.values():
            self._settle(stored)
            with ir.InsertionPoint.at_block_begin(body_of(system)), stored.adjoint.op.location:
                extents = [*stored.box.extents(), *affine_extents(stored.value, self._symbols)]
                stored.array = create_unknown(stored.name, extents, len(self._symbols), stored.value.type)
            with following:
                stored.solved = take_out(system, stored.name, stored.array.type)
        for stored in self._stored.values():
            self._emit_zeros(stored, system)
            with ir.InsertionPoint(body_of(stored.adjoint.op)), stored.adjoint.op.location:
                ir.Operation.create(
                    "parc.write",
                    operands=[stored.value, stored.array],
                    attributes={"at": ir.AffineMapAttr.get(affine_map(stored.moved(stored.index)))},
                )
        return following

    def tidy(self) -> None:
        """Take out only what is used."""
        for stored in self._stored.values():
            if not list(stored.solved.uses):
                stored.solved.owner.erase()

    def _settle(self, stored: Stored) -> None:
        """Find the box of all points that write a value or read it."""
        points = stored.written
        for needed in stored.needed:
            points = points.union(needed)
        box = bounding_box(points.intersect_params(self._context).coalesce())
        if box is None:
            raise CompileError(
                f"cannot differentiate {stored.adjoint.name}: the points that need its cotangents have no bounds: "
                f"{points}",
                stored.adjoint.op.location,
            )
        stored.box = box

    def _emit_zeros(self, stored: Stored, system: ir.Operation) -> None:
        """Zero where no point makes a contribution: a reader may look for one there."""
        every = stored.box.points(stored.written.get_space()).intersect_params(self._context)
        missing = every.subtract(stored.written).coalesce()
        if missing.is_empty():
            return
        define_as_zero(system, stored.array, missing, stored.moved(identity(missing)), self._symbols)


def define_results(system: ir.Operation) -> None:
    """Zeros for what a system gives away but does not define: elements of arrays that are saved whole."""
    model = build(system)
    for unknown in model.unknowns:
        defined = [w.relation.range() for e in model.equations for w in e.writes if w.array == unknown.name]
        defined += [b.target.relation.range() for b in model.boundaries if b.target.array == unknown.name]
        missing = unknown.taken
        for elements in defined:
            missing = missing.subtract(elements)
        if not missing.is_empty():
            missing = missing.coalesce()
            define_as_zero(system, unknown.op.results[0], missing, identity(missing), list(system.operands))


def define_as_zero(
    system: ir.Operation, array: ir.Value, elements: isl.Set, index: isl.MultiAff, symbols: Sequence[ir.Value]
) -> None:
    """Add boundaries of zeros to a system for `array[index(p)]`, p in `elements`."""
    rank = elements.dim(SET)
    tile = ir.AffineMapAttr(array.owner.attributes["shape"]).value.results[rank:]
    with ir.InsertionPoint(system), system.location:
        zero = filled(empty_of([size_value(e, symbols) for e in tile], array.type.element_type))
    for domain in integer_sets(elements):
        with ir.InsertionPoint.after(array.owner), system.location:
            ir.Operation.create(
                "parc.boundary",
                operands=[array, zero],
                attributes={
                    "domain": domain,
                    "to": ir.AffineMapAttr.get(affine_map(index)),
                    "of": ir.AffineMapAttr.get(ir.AffineMap.get(rank, len(symbols), [])),
                },
            )
