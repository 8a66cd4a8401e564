"""`unroll-loops`: a loop with a constant number of steps becomes a straight line.

`raise-recurrence` reads straight-line traces; a model file may come with the loop still rolled:

    %h = scf.for %t = %c0 to %c4 step %c1 iter_args(%s = %h0) -> tensor<2x8xf32> { ... scf.yield %n }
  becomes
    the body four times, %t replaced by 0, 1, 2, 3 and %s by what the step before yielded

A loop whose number of steps is not a constant stays.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch_mlir import ir
from torch_mlir.dialects import arith

from parc.errors import CompileError
from parc.passbase import Pass

#: A trace is taken at a few small sizes; a longer constant loop was not meant to be unrolled.
_MAX_STEPS = 4096


@dataclass
class UnrollLoops(Pass):
    """Turn `scf.for` loops with a constant number of steps into straight-line code."""

    name: ClassVar[str] = "unroll-loops"

    def run(self, module: ir.Module) -> None:
        for func in module.body.operations:
            if func.operation.name == "func.func":
                for block in func.operation.regions[0].blocks:
                    _unroll_in(block)


def _unroll_in(block: ir.Block) -> None:
    for op in list(block.operations):
        if op.operation.name == "scf.for":
            _unroll(op.operation)


def _unroll(loop: ir.Operation) -> None:
    bounds = [_constant(v) for v in list(loop.operands)[:3]]
    body = loop.regions[0].blocks[0]
    _unroll_in(body)
    if None in bounds or any(not isinstance(t.type, ir.RankedTensorType) for t in loop.results):
        return
    lower, upper, step = (b for b in bounds if b is not None)
    if step <= 0:
        raise CompileError(f"a loop with step {step} does not end", loop.location)
    if len(range(lower, upper, step)) > _MAX_STEPS:
        raise CompileError(
            f"a loop of {len(range(lower, upper, step))} steps is too long to unroll (at most {_MAX_STEPS})",
            loop.location,
        )
    carried = list(loop.operands)[3:]
    for position in range(lower, upper, step):
        with ir.InsertionPoint(loop), loop.location:
            mapping = {body.arguments[0]: arith.constant(body.arguments[0].type, position)}
            mapping.update(zip(list(body.arguments)[1:], carried, strict=True))
            for op in body.operations:
                if op.operation.name == "scf.yield":
                    carried = [mapping.get(v, v) for v in op.operation.operands]
                    break
                clone = op.operation.clone()
                remap(clone, mapping)
                mapping.update(zip(op.operation.results, clone.results, strict=True))
    for result, value in zip(loop.results, carried, strict=True):
        result.replace_all_uses_with(value)
    loop.erase()


def _constant(value: ir.Value) -> int | None:
    if isinstance(value.owner, ir.Block) or value.owner.name != "arith.constant":
        return None
    return int(value.owner.attributes["value"].value)


def remap(op: ir.Operation, mapping: dict[ir.Value, ir.Value]) -> None:
    """Replace operands of an operation and of everything nested in it."""
    for i, value in enumerate(op.operands):
        if value in mapping:
            op.operands[i] = mapping[value]
    for region in op.regions:
        for block in region.blocks:
            for inner in block.operations:
                remap(inner.operation, mapping)
