"""`unroll-loops`: a loop with a constant number of steps becomes a straight line.

`raise-recurrence` reads straight-line traces; a model file may come with the loop still rolled:

    %h = scf.for %t = %c0 to %c4 step %c1 iter_args(%s = %h0) -> tensor<2x8xf32> { ... scf.yield %n }
  becomes
    the body four times, %t replaced by 0, 1, 2, 3 and %s by what the step before yielded

A loop whose number of steps is not a constant stays.
"""

from dataclasses import dataclass

from torch_mlir import ir
from torch_mlir.dialects import arith, func

from parc.codegen.irtools import clone_with, constant_int
from parc.errors import CompileError
from parc.passbase import Pass

#: A trace is taken at a few small sizes; a longer constant loop was not meant to be unrolled.
_MAX_STEPS = 4096


@dataclass
class UnrollLoops(Pass):
    """Turn `scf.for` loops with a constant number of steps into straight-line code."""

    name = "unroll-loops"

    def run(self, module: ir.Module) -> None:
        for function in module.body.operations:
            if isinstance(function, func.FuncOp) and not function.is_external:
                for op in list(function.entry_block.operations):
                    if op.operation.name == "scf.for":
                        _unroll(op.operation)


def _unroll(loop: ir.Operation) -> None:
    """Replace a loop by its steps, and so the loops inside it, where their bounds are constants."""
    bounds = [constant_int(v) for v in list(loop.operands)[:3]]
    if None in bounds:
        return
    lower, upper, step = (b for b in bounds if b is not None)
    if step <= 0:
        raise CompileError(f"a loop with step {step} does not end", loop.location)
    positions = range(lower, upper, step)
    if (steps := len(positions)) > _MAX_STEPS:
        raise CompileError(f"a loop of {steps} steps is too long to unroll (at most {_MAX_STEPS})", loop.location)
    body = loop.regions[0].blocks[0]
    *operations, terminator = body.operations
    carried = list(loop.operands)[3:]
    inner = []
    for position in positions:
        with ir.InsertionPoint(loop), loop.location:
            values = {body.arguments[0]: arith.constant(body.arguments[0].type, position)}
            values.update(zip(list(body.arguments)[1:], carried, strict=True))
            copies = [clone_with(op, values) for op in operations]
        inner += [copy for copy in copies if copy.name == "scf.for"]
        carried = [values.get(v, v) for v in terminator.operation.operands]
    for result, value in zip(loop.results, carried, strict=True):
        result.replace_all_uses_with(value)
    loop.erase()
    for copy in inner:
        _unroll(copy)
