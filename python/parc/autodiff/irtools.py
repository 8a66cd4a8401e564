"""Helpers on the operations that differentiation makes."""

from collections.abc import Container, Sequence

from torch_mlir import ir

from parc.codegen.irtools import captured_values

_EFFECTS = ("parc.write", "parc.equation", "parc.unknown", "parc.boundary", "func.return", "cf.assert")


def body_of(op: ir.Operation | ir.OpView) -> ir.Block:
    """The block of an operation with one region of one block."""
    return op.operation.regions[0].blocks[0]


def named(block: ir.Block, *names: str) -> list[ir.Operation]:
    """The operations of a block with one of these names."""
    return [o.operation for o in block.operations if o.operation.name in names]


def is_outside(value: ir.Value, block: ir.Block) -> bool:
    """Whether a value is defined outside of a block of an isolated nest (its own operations and arguments)."""
    owner = value.owner
    return (owner if isinstance(owner, ir.Block) else owner.operation.block) != block


def hoist_invariants(block: ir.Block, before: ir.Operation) -> None:
    """Move what depends on nothing inside the block in front of `before`."""
    for op in list(block.operations):
        operation = op.operation
        if operation.name.startswith(("parc.", "builtin.")):
            continue
        if all(is_outside(v, block) for v in captured_values(op)):
            operation.move_before(before)


def remove_unused(block: ir.Block, *, spared: Container[ir.Value] = ()) -> None:
    """Erase operations of a block whose results nothing uses, last to first; not those that have a spared result."""
    for op in reversed(list(block.operations)):
        results = op.operation.results
        effects = op.operation.name in _EFFECTS
        if not effects and not any(list(r.uses) or r in spared for r in results):
            op.operation.erase()


def read(array: ir.Value, at: ir.AffineMap, type_: ir.Type) -> ir.Value:
    """A `parc.read`, emitted at the current insertion point."""
    attributes = {"at": ir.AffineMapAttr.get(at)}
    return ir.Operation.create("parc.read", results=[type_], operands=[array], attributes=attributes).results[0]


def take_out(system: ir.Operation, name: str, type_: ir.Type) -> ir.Value:
    """A `parc.array`, emitted at the current insertion point."""
    attributes = {"name": ir.StringAttr.get(name)}
    return ir.Operation.create("parc.array", [type_], [system.results[0]], attributes=attributes).results[0]


def create_unknown(name: str, extents: Sequence[ir.AffineExpr], symbols: int, tile: ir.RankedTensorType) -> ir.Value:
    """A `parc.unknown` for tiles of one type, emitted at the current insertion point."""
    leading = [ir.ShapedType.get_dynamic_size()] * (len(extents) - tile.rank)
    shape = ir.AffineMap.get(0, symbols, list(extents))
    attributes = {"name": ir.StringAttr.get(name), "shape": ir.AffineMapAttr.get(shape)}
    type_ = ir.RankedTensorType.get([*leading, *tile.shape], tile.element_type)
    return ir.Operation.create("parc.unknown", [type_], attributes=attributes).results[0]
