"""What leaves an adjoint system: cotangents of parameters, of known arrays and of initial values.

They are sums over all points of an equation, taken behind the system in one operation on stacks of tiles.
"""

from collections.abc import Callable, Sequence

import islpy as isl
from torch_mlir import ir
from torch_mlir.dialects import tensor

from parc.autodiff import cut
from parc.autodiff.emit import empty_of, filled
from parc.autodiff.equations import EquationAdjoint, Use
from parc.autodiff.extents import Sizes
from parc.autodiff.irtools import body_of, is_outside
from parc.autodiff.sets import identity, unchanged
from parc.autodiff.stacks import Frame, Stack, can_lift, in_order, lift, place, slopes, stack, sum_stack
from parc.autodiff.stores import Stored, Stores
from parc.autodiff.transpose import Transposed, as_index
from parc.codegen.irtools import captured_values
from parc.errors import CompileError
from parc.poly.affine import SET
from parc.poly.boxes import Box, bounding_box
from parc.poly.model import Boundary

Part = tuple[ir.Value, ir.Value]
"""A value from outside of the system, and a part of its cotangent."""


class Outside:
    """Notes what has to be stored, and returns plans that emit the rest once the system is there.

    `kept` collects the arrays of the forward pass that the plans use.
    """

    def __init__(self, transposed: Transposed, stores: Stores, symbols: Sequence[ir.Value], context: isl.Set) -> None:
        self._transposed = transposed
        self._stores = stores
        self._symbols = list(symbols)
        self._context = context
        self.kept: set[ir.Value] = set()

    def plan(self, use: Use) -> Callable[[], Part]:
        """The plan for one contribution to a captured value or a known array."""
        adjoint, domain, location = use.adjoint, use.adjoint.forward.domain, use.adjoint.op.location
        box = box_of(domain, adjoint.name, location)
        index = None if use.access is None else as_index(use.access, domain, location)
        moves = [] if index is None else slopes(index)
        if moves is None:
            raise CompileError(
                f"cannot differentiate {adjoint.name}: its read at {use.access} is not a slice", location
            )
        kept = [d for d, step in moves if step]
        op, block = use.value.owner.operation, body_of(adjoint.op)
        varying = [v for v in captured_values(op) if not is_outside(v, block)]
        lifted = (
            op.block == block
            and can_lift(op)
            and all(v in list(op.operands) for v in varying)
            and (index is None or cut.is_costly(op))
        )
        operands = varying if lifted else [use.value]
        signs = _signs(moves, [_access_of(v, adjoint) for v in operands], len(box.extent))
        frame = Frame(box, signs)
        sources = {v: self._source(adjoint, v, frame) for v in operands}

        def emit() -> Part:
            stacks = {v: self._stack(source, frame, location) for v, source in sources.items()}
            if lifted:
                value = lift(op, stacks, box, kept, self._symbols)
            else:
                value = sum_stack(stacks[use.value], box, kept, self._symbols)
            if index is not None:
                value = place(value, index, frame, use.array, self._symbols)
            return use.array, value

        return emit

    def boundary_plan(self, boundary: Boundary, cotangent: ir.Value | None) -> Callable[[], list[Part]]:
        """The plan for the cotangent of initial values; `cotangent` is that of the whole array."""
        op, domain = boundary.op, boundary.target.relation.domain()
        array, source = op.operands
        to, of = (ir.AffineMapAttr(op.attributes[key]).value for key in ("to", "of"))
        sometimes = domain.dim(SET) == 0 and not self._context.is_subset(domain.params())
        if sometimes:
            # At sizes that do not use the value the same elements are read, and are zero.
            domain = isl.Set.universe(domain.get_space()).intersect_params(self._context)
        box = box_of(domain, "an initial value", op.location)
        index, target = as_index(of, domain, op.location), as_index(to, domain, op.location)
        moves = slopes(index)
        if moves is None:
            raise CompileError(f"cannot differentiate an initial value taken at {of}", op.location)
        kept = [d for d, step in moves if step]
        frame = Frame(box, _signs(moves, [], len(box.extent)))
        links = self._transposed.links(array, domain, to, op.location)

        def emit() -> list[Part]:
            parts = []
            for link in links:
                stacked = self._stack((link.stored, link.at), frame, op.location)
                if link.product is None:
                    parts.append(sum_stack(stacked, box, kept, self._symbols))
                else:
                    varying = link.product.operands[link.operand]
                    parts.append(lift(link.product, {varying: stacked}, box, kept, self._symbols))
            if cotangent is not None:
                given = _longer(cotangent, to, op.location) if sometimes else cotangent
                stacked = self._stack((given, target), frame, op.location)
                parts.append(sum_stack(stacked, box, kept, self._symbols))
            return [(source, place(part, index, frame, source, self._symbols)) for part in parts]

        return emit

    def _source(
        self, adjoint: EquationAdjoint, value: ir.Value, frame: Frame
    ) -> tuple[Stored | ir.Value, isl.MultiAff]:
        """An array with the value at all points in the frame's order, and its index; stored if there is none."""
        domain = adjoint.forward.domain
        access = _access_of(value, adjoint)
        if access is not None and in_order(access, frame):
            self.kept.add(value.owner.operands[0])
            return value.owner.operands[0], access
        home, inner, function = self._transposed.source(adjoint, value, unchanged(domain), domain)
        index = identity(home.forward.domain)
        at = index.pullback_multi_aff(function)
        if not in_order(at, frame):
            home, inner, index = adjoint, value, frame.position(domain)
            at = index
        return self._stores.of(home, inner, index, domain, at), at

    def _stack(self, source: tuple[Stored | ir.Value, isl.MultiAff], frame: Frame, location: ir.Location) -> Stack:
        array, at = source
        if isinstance(array, Stored):
            array, at = array.solved, array.moved(at)
        if not in_order(at, frame):
            raise CompileError("cannot differentiate: an access does not follow the order of the points", location)
        return stack(array, at, frame, self._symbols)


def _longer(array: ir.Value, index: ir.AffineMap, location: ir.Location) -> ir.Value:
    """The array with zeros behind its end, so that it has the element at a constant index at all sizes."""
    first = index.results[0].maybe_downcast() if len(index.results) == 1 else None
    if not isinstance(first, ir.AffineConstantExpr):
        raise CompileError(f"cannot differentiate an initial value at {index} that only some sizes have", location)
    extents = Sizes().of(array)
    zeros = filled(empty_of([first.value + 1, *extents[1:]], array.type.element_type))
    type_ = ir.RankedTensorType.get([ir.ShapedType.get_dynamic_size(), *array.type.shape[1:]], array.type.element_type)
    return tensor.ConcatOp(type_, 0, [array, zeros]).result


def box_of(domain: isl.Set, name: str, location: ir.Location) -> Box:
    """The domain as a box; CompileError where it is none."""
    box = bounding_box(domain)
    if box is None or not box.points(domain.get_space()).intersect_params(domain.params()).is_subset(domain):
        raise CompileError(f"cannot differentiate {name}: its points are no box: {domain}", location)
    return box


def _signs(moves: Sequence[tuple[int, int]], reads: Sequence[isl.MultiAff | None], rank: int) -> tuple[int, ...]:
    """In which direction to stack along each dimension: as the first access that moves along it does."""
    signs = [0] * rank
    for found in (moves, *(slopes(r) or [] for r in reads if r is not None)):
        for d, step in found:
            if step and not signs[d]:
                signs[d] = 1 if step > 0 else -1
    return tuple(s or 1 for s in signs)


def _access_of(value: ir.Value, adjoint: EquationAdjoint) -> isl.MultiAff | None:
    """The index function of a tile that the adjoint's body reads."""
    owner = None if isinstance(value.owner, ir.Block) else value.owner.operation
    if owner is None or owner.name != "parc.read":
        return None
    return as_index(ir.AffineMapAttr(owner.attributes["at"]).value, adjoint.forward.domain, owner.location)
