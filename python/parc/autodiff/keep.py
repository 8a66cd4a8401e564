"""What a forward system keeps for its adjoint: the cheapest values that the adjoint can recompute all others from."""

from collections.abc import Callable, Sequence

from torch_mlir import ir

from parc.autodiff import cut
from parc.autodiff.equations import EquationAdjoint
from parc.autodiff.irtools import body_of, create_unknown, is_outside, named, read, remove_unused
from parc.autodiff.outside import box_of
from parc.autodiff.sets import affine_map, identity
from parc.autodiff.stacks import affine_extents
from parc.autodiff.words import words
from parc.codegen.irtools import captured_values


class Keep:
    """Cuts the forward bodies inside adjoint equations where that keeps least.

    `array` gives a solved array of the forward system by its `parc.unknown`; `there` are the arrays that the backward
    pass has anyway.
    """

    def __init__(
        self,
        system: ir.Operation,
        array: Callable[[ir.Value], ir.Value],
        there: set[ir.Value],
        symbols: Sequence[ir.Value],
    ) -> None:
        self._system = system
        self._array = array
        self._there = there
        self._symbols = list(symbols)
        self._count = 0

    def cut(self, adjoint: EquationAdjoint) -> None:
        """Replace forward values in an adjoint equation by reads of arrays that the forward system keeps."""
        block = body_of(adjoint.op)
        original = {copy: value for value, copy in adjoint.copies.items()}
        # Copies are in the way of the cut only as long as derivatives use them.
        remove_unused(block, spared=original)
        local = {v for v in original if not isinstance(v.owner, ir.Block) and not is_outside(v, block)}
        needed = [v for v in local if any(not _is_copy(u.owner, local, block) for u in v.uses)]
        written = {w.operands[0]: w for w in named(body_of(adjoint.forward.op), "parc.write")}

        def made_from(value: ir.Value) -> Sequence[ir.Value] | None:
            op = value.owner.operation
            if op.name == "parc.read" or cut.is_costly(op):
                return None
            return [v for v in captured_values(op) if v in local]

        def cost(value: ir.Value) -> float:
            if value.owner.operation.name == "parc.read":
                return self._price(value.owner.operands[0], value)
            if original[value] in written:
                return self._price(self._array(written[original[value]].operands[1]), value)
            return cut.tensor_bytes(value)

        for value in cut.minimum_cut(needed, made_from, cost):
            if value.owner.operation.name == "parc.read":
                continue
            source = original[value]
            if source not in written:
                written[source] = self._write(adjoint, source)
            write = written[source]
            with ir.InsertionPoint(value.owner), value.owner.location:
                at = ir.AffineMapAttr(write.attributes["at"]).value
                value.replace_all_uses_with(read(self._array(write.operands[1]), at, value.type))
        remove_unused(block)
        copies = (o.operation for o in block.operations if any(r in local for r in o.operation.results))
        adjoint.recomputed = words(copies)

    def _price(self, array: ir.Value, value: ir.Value) -> float:
        """What it costs to have an array in the backward pass; next to nothing where it is there already."""
        there = isinstance(array.owner, ir.Block) or array in self._there
        return cut.tensor_bytes(value) / (1024 if there else 1)

    def _write(self, adjoint: EquationAdjoint, value: ir.Value) -> ir.Operation:
        """Let the forward equation write a value to an array of its own."""
        equation = adjoint.forward
        box = box_of(equation.domain, equation.name, equation.op.location)
        at = affine_map(identity(equation.domain), box.lower)
        name = f"{equation.name}_saved{self._count}"
        self._count += 1
        tile = affine_extents(value, self._symbols)
        with ir.InsertionPoint.at_block_begin(body_of(self._system)), value.owner.location:
            array = create_unknown(name, [*box.extents(), *tile], len(self._symbols), value.type)
        with ir.InsertionPoint(body_of(equation.op)), value.owner.location:
            attributes = {"at": ir.AffineMapAttr.get(at)}
            return ir.Operation.create("parc.write", operands=[value, array], attributes=attributes)


def _is_copy(user: ir.OpView, local: set[ir.Value], block: ir.Block) -> bool:
    """Whether an operation, or the one of the block that it is in, is a copy of a forward one."""
    op = user.operation
    while op.block != block:
        op = op.parent.operation
    return any(r in local for r in op.results)
