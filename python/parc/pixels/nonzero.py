"""Which elements of what parameters make can be other than zero."""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray
from torch_mlir import ir
from torch_mlir.dialects import linalg

from parc.codegen.elements import splat, static_extents
from parc.codegen.irtools import defining_op

Pattern = NDArray[np.bool_]
"""True where an element may be other than zero."""

#: Zero where the first operand is.
_BY_FIRST = ("arith.divf", "arith.negf", "arith.truncf", "arith.extf", "arith.sitofp", "math.tanh", "math.absf")
#: Zero where any operand is.
_BY_ANY = ("arith.mulf", "arith.muli", "arith.andi")
#: Zero where all operands are.
_BY_ALL = ("arith.addf", "arith.subf", "arith.addi", "arith.subi", "arith.maximumf", "arith.minimumf")


class Nonzero:
    """Patterns of the values of a function, from those of its arguments."""

    def __init__(self, arguments: Mapping[ir.Value, Pattern]) -> None:
        self._patterns: dict[ir.Value, Pattern] = dict(arguments)

    def of(self, value: ir.Value) -> Pattern:
        """The pattern of a tensor of static shape; true everywhere when nothing is known."""
        if value not in self._patterns:
            shape = [e or 1 for e in static_extents(value.type)]
            self._patterns[value] = np.broadcast_to(self._new(value), shape)
        return self._patterns[value]

    def _new(self, value: ir.Value) -> Pattern:
        op = defining_op(value)
        if splat(value) is not None:
            return _constant(value)
        if op is None or None in static_extents(value.type) or len(op.operation.results) != 1:
            return _TRUE
        name, operands = op.operation.name, op.operation.operands
        if name in ("tensor.collapse_shape", "tensor.expand_shape"):
            return self.of(operands[0]).reshape([e or 0 for e in static_extents(value.type)])
        if name.startswith("linalg."):
            return self._structured(op, value)
        return _TRUE

    def _structured(self, op: ir.OpView, value: ir.Value) -> Pattern:
        """An elementwise operation's pattern, over its iterations in the order of the result's dimensions."""
        attributes = linalg.get_indexing_maps(op)
        maps = [ir.AffineMapAttr(m).value for m in attributes or []]
        plain = all(isinstance(e, ir.AffineDimExpr | ir.AffineConstantExpr) for m in maps for e in m.results)
        if not maps or not plain or not maps[-1].is_permutation:
            return _TRUE
        place = {e.position: i for i, e in enumerate(maps[-1].results)}
        block = op.regions[0].blocks[0]
        scalars: dict[ir.Value, Pattern] = {}
        for argument, operand, map_ in zip(block.arguments, op.operation.operands, maps, strict=True):
            fixed = tuple(e.value if isinstance(e, ir.AffineConstantExpr) else slice(None) for e in map_.results)
            order = [place[e.position] for e in map_.results if isinstance(e, ir.AffineDimExpr)]
            pattern = self.of(operand)[fixed].transpose(np.argsort(order))
            scalars[argument] = np.expand_dims(pattern, [i for i in range(len(place)) if i not in order])

        def scalar(v: ir.Value) -> Pattern:
            if v not in scalars:
                owner = defining_op(v)
                if owner is not None and owner.operation.block == block:
                    scalars[v] = _combined(owner.operation, scalar)
                else:
                    scalars[v] = _constant(v)
            return scalars[v]

        return scalar(list(block.operations)[-1].operation.operands[0])


_TRUE: Pattern = np.array(True)


def _constant(value: ir.Value) -> Pattern:
    constant = splat(value)
    return np.array(not isinstance(constant, ir.FloatAttr | ir.IntegerAttr) or constant.value != 0)


def _combined(op: ir.Operation, scalar: Callable[[ir.Value], Pattern]) -> Pattern:
    """The pattern of a scalar operation's result."""
    if op.name == "arith.constant":
        return _constant(op.results[0])
    operands = [scalar(v) for v in op.operands]
    if op.name in _BY_FIRST:
        return operands[0]
    if op.name in _BY_ANY:
        return np.logical_and(*operands)
    if op.name in _BY_ALL:
        return np.logical_or(*operands)
    return np.logical_or(*operands[1:]) if op.name == "arith.select" else _TRUE
