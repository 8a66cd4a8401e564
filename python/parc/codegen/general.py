"""Equations of any form: their bodies are copied to each of their points and lowered like other linalg code."""

from collections.abc import Callable, Sequence

from torch_mlir import ir
from torch_mlir.dialects import bufferization

from parc.codegen.arrays import Array
from parc.codegen.irtools import captured_values, clone_with, defining_op

# Tensors that hold nothing or one number: a body uses them as places for its results, so threads must not share them.
_SCRATCH = ("tensor.empty", "linalg.fill")
# What may run outside of the equation's points: it has no effects and cannot fail.
_PURE_DIALECTS = ("arith", "math", "complex", "affine", "tensor", "linalg")


class GeneralEquation:
    """The body of one equation, on tensors; `array` finds the buffer of an array that the system reads or writes."""

    def __init__(self, op: ir.Operation, symbols: Sequence[ir.Value], array: Callable[[ir.Value], Array]) -> None:
        self._block = op.regions[0].blocks[0]
        self._symbols = symbols
        self._accessed = {
            access: array(access.operands[0 if access.name == "parc.read" else 1])
            for access in (o.operation for o in self._block.operations)
            if access.name in ("parc.read", "parc.write")
        }
        self._scratch = _scratch_in_front(self._block)
        self._hoisted: dict[ir.Value, ir.Value] = {}
        self._hoist()

    def _hoist(self) -> None:
        """Copy what does not depend on the point to the insertion point (the transposes of weights, say)."""
        local = {*self._block.arguments}
        cheap = {r: op for op in self._scratch for r in op.results}
        copies: dict[ir.Value, ir.Value] = {}

        def copy_cheap(value: ir.Value) -> None:
            if value in cheap and value not in copies:
                for operand in cheap[value].operands:
                    copy_cheap(operand)
                clone_with(cheap[value], copies)

        for op in self._block.operations:
            inputs, results = captured_values(op), list(op.operation.results)
            pure = op.operation.name.split(".")[0] in _PURE_DIALECTS
            if not pure or any(v in local for v in inputs):
                local.update(results)
            elif all(v in cheap or not isinstance(v.type, ir.RankedTensorType) for v in inputs):
                # Constants and empty tensors stay at the point: each thread has its own.
                cheap.update(dict.fromkeys(results, op.operation))
            else:
                for value in inputs:
                    copy_cheap(value)
                clone_with(op, copies)
                self._hoisted.update((r, copies[r]) for r in results)

    def emit(self, point: Sequence[ir.Value]) -> None:
        """Copy the body to the insertion point, for the instance at `point`."""
        values = self._hoisted | dict(zip(self._block.arguments, point, strict=True))
        for op in self._scratch:
            clone_with(op, values)
        for op in self._block.operations:
            access = op.operation
            if access.name == "parc.read":
                tile = self._tile(access, point)
                values[access.results[0]] = bufferization.to_tensor(access.results[0].type, tile, restrict=True)
            elif access.name == "parc.write":
                value = values.get(access.operands[0], access.operands[0])
                if access.operands[0] in self._hoisted:
                    # It is used at other points too: its buffer must not become the tile of this one.
                    value = bufferization.alloc_tensor(value.type, [], copy=value)
                bufferization.materialize_in_destination(
                    None, value, self._tile(access, point), restrict=True, writable=True
                )
            elif not any(r in self._hoisted for r in access.results):
                clone_with(op, values)

    def _tile(self, access: ir.Operation, point: Sequence[ir.Value]) -> ir.Value:
        map_ = ir.AffineMapAttr(access.attributes["at"]).value
        return self._accessed[access].tile(map_, point, self._symbols)


def _scratch_in_front(block: ir.Block) -> list[ir.Operation]:
    """The operations in front of the system that make the scratch tensors of a body, each after what it uses."""
    found: dict[ir.Operation, None] = {}

    def visit(value: ir.Value) -> None:
        op = defining_op(value)
        if op is None or op.operation.name not in _SCRATCH or op.operation.block == block:
            return
        for operand in op.operation.operands:
            visit(operand)
        found[op.operation] = None

    for op in block.operations:
        for value in captured_values(op):
            visit(value)
    return list(found)
