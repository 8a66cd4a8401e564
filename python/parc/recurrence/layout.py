"""Tensors with symbolic shapes: their types, and changes of layout at the current insertion point."""

from collections.abc import Sequence

from torch_mlir import ir
from torch_mlir.dialects import linalg, tensor

from parc.errors import CompileError
from parc.recurrence.fit import Extent
from parc.recurrence.symbolic import SymbolicCloner


def tensor_type(shape: Sequence[Extent], element: ir.Type) -> ir.RankedTensorType:
    """The type of a tensor of this shape; extents that depend on the symbols are dynamic."""
    dynamic = ir.ShapedType.get_dynamic_size()
    return ir.RankedTensorType.get([e.constant if e.is_constant else dynamic for e in shape], element)


def reshape(cloner: SymbolicCloner, value: ir.Value, old: Sequence[Extent], new: Sequence[Extent]) -> ir.Value:
    """Insert or remove unit dimensions; raises `CompileError` when the shapes differ in more."""
    element = value.type.element_type
    kept_old = [i for i, e in enumerate(old) if e != Extent(1)]
    kept_new = [i for i, e in enumerate(new) if e != Extent(1)]
    if [old[i] for i in kept_old] != [new[i] for i in kept_new]:
        raise CompileError("a step's value is used in another shape than it has", ir.Location.current)
    if len(kept_old) != len(old):
        type_ = tensor_type([old[i] for i in kept_old], element)
        value = tensor.CollapseShapeOp(type_, value, _unit_groups(len(old), kept_old)).result
    if len(kept_new) != len(new):
        static, dynamic = cloner.mixed(new)
        groups = _unit_groups(len(new), kept_new)
        value = tensor.ExpandShapeOp(tensor_type(new, element), value, groups, dynamic, static).result
    return value


def transpose(cloner: SymbolicCloner, value: ir.Value, order: Sequence[int], shape: Sequence[Extent]) -> ir.Value:
    """Dimension i of the result is dimension `order[i]` of `value`, whose shape this is."""
    permuted = [shape[d] for d in order]
    type_ = tensor_type(permuted, value.type.element_type)
    _, dynamic = cloner.mixed(permuted)
    empty = ir.Operation.create("tensor.empty", results=[type_], operands=dynamic).results[0]
    return linalg.transpose(value, outs=[empty], permutation=list(order)).results[0]


def _unit_groups(rank: int, kept: Sequence[int]) -> list[list[int]]:
    """A reassociation that folds the unit dimensions into the kept ones."""
    if not kept:
        return []
    ends = [*kept[1:], rank]
    groups = [list(range(start, end)) for start, end in zip(kept, ends, strict=True)]
    groups[0] = [*range(kept[0]), *groups[0]]
    return groups
