"""`lower-iterations`: sweeps become loops that end when nothing changes."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch_mlir import ir
from torch_mlir.dialects import arith, bufferization, func, linalg, memref, scf, tensor

from parc.autodiff.extents import Sizes, split
from parc.codegen.irtools import (
    append_results,
    captured_values,
    find_function,
    members,
    name_of,
    terminator,
    walk,
)
from parc.codegen.loops import index
from parc.errors import CompileError
from parc.passbase import Pass

# Operations whose results only depend on their operands.
_PURE = ("arith", "math", "complex", "affine", "tensor", "linalg")


@dataclass
class LowerIterations(Pass):
    """Sweeps become loops that end when nothing changes.

    Each array has one buffer, which a sweep reads, and writes when it has computed all of the next one. What is the
    same in every sweep moves out of the loop. The number of sweeps and the last change become results of `@main` of
    `parc.kind = "statistic"`.

        %s = "parc.iterate"(%limit) ({                       %a = memref.alloc(%T) : memref<?x8xf32>
        ^bb0(%k: index):                                     linalg.copy ins(%start) outs(%a)
          %old = "parc.previous"(%start) {name = "H"}        %n, %last = scf.while (%k = 0, %c = inf) {
          ...                                                  scf.condition(%k < %limit and not %c <= 1.0e-06) %k, %c
          "parc.next"(%new) {name = "H"}                     } do {
          "parc.change"(%change)                               %old = bufferization.to_tensor %a restrict
        }, {                                                   ...
          "parc.next"(%exact) {name = "H"}                     linalg.copy ins(%new) outs(%a)
        }) {tolerance = 1.0e-06 : f64}                         scf.yield %k + 1, %change
        %H = "parc.iterated"(%s) {name = "H"}                }
                                                             scf.if not %last <= 1.0e-06 {
                                                               linalg.copy ins(%exact) outs(%a) }
                                                             %H = bufferization.to_tensor %a restrict
    """

    name = "lower-iterations"

    def run(self, module: ir.Module) -> None:
        main = find_function(module, "main")
        if main is None:
            raise CompileError("the module has no function @main")
        # Inner ones first, so that what does not change in them moves out of all loops.
        for op in reversed(walk(main, "parc.iterate")):
            with op.location:
                _move_out(op.operation.regions[0].blocks[0], op)
        statistics = [s for op in walk(main, "parc.iterate") if (s := _lower(op.operation)).is_inside(main)]
        if statistics:
            with module.context:
                _return_statistics(main, statistics)


@dataclass(frozen=True)
class _Statistics:
    """How a loop ended: values behind it."""

    name: str
    solver: ir.Attribute
    tolerance: ir.Attribute
    sweeps: ir.Value
    change: ir.Value

    def is_inside(self, function: func.FuncOp) -> bool:
        """Is the loop in the function's own block, and runs once?"""
        return bool(self.sweeps.owner.operation.parent == function.operation)


def _move_out(block: ir.Block, before: ir.OpView) -> None:
    """Move what does not depend on the sweep in front of an iteration."""
    inside = {*block.arguments, *(result for op in block.operations for result in op.operation.results)}
    for op in list(block.operations):
        if op.operation.name.split(".")[0] not in _PURE or any(v in inside for v in captured_values(op)):
            continue
        inside.difference_update(op.operation.results)
        op.operation.move_before(before.operation)


def _lower(op: ir.Operation) -> _Statistics:
    """Replace one `parc.iterate`."""
    body, otherwise = op.regions
    tolerance = ir.FloatAttr(op.attributes["tolerance"]).value
    with ir.InsertionPoint(op), op.location:
        buffers = {name_of(p): _buffer(p.operands[0]) for p in members(body.blocks[0], "parc.previous")}
        (change,) = members(body.blocks[0], "parc.change")
        loop = _loop(op.operands[0], change.operands[0].type, tolerance)
        _fill(loop.after.blocks[0], body.blocks[0], buffers)
        sweeps, last = loop.results
        if list(otherwise.blocks):
            branch = scf.IfOp(_goes_on(last, tolerance))
            with ir.InsertionPoint(branch.then_block):
                scf.YieldOp([])
            _take_over(otherwise.blocks[0], branch.then_block)
            _store_next(branch.then_block, buffers)
        for use in list(op.results[0].uses):
            taker = use.owner.operation
            value = bufferization.to_tensor(taker.results[0].type, buffers[name_of(taker)], restrict=True)
            taker.results[0].replace_all_uses_with(value)
            taker.erase()
    statistics = _Statistics(name_of(op), op.attributes["solver"], op.attributes["tolerance"], sweeps, last)
    op.erase()
    return statistics


def _buffer(start: ir.Value) -> ir.Value:
    """A buffer of its own for an array, which holds what it starts from."""
    type_ = ir.MemRefType.get(start.type.shape, start.type.element_type)
    buffer = memref.alloc(type_, split(Sizes().of(start))[0], [])
    _copy(start, buffer)
    return buffer


def _copy(value: ir.Value, buffer: ir.Value) -> None:
    linalg.copy(bufferization.to_buffer(buffer.type, value), outs=[buffer])


def _loop(limit: ir.Value, number: ir.Type, tolerance: float) -> scf.WhileOp:
    """A loop without a body, over the number of sweeps so far and the last change."""
    types = [ir.IndexType.get(), number]
    loop = scf.WhileOp(types, [index(0), arith.constant(number, float("inf"))])
    before, _ = (region.blocks.append(*types) for region in loop.operation.regions)
    with ir.InsertionPoint(before):
        sweeps, change = before.arguments
        more = arith.cmpi(arith.CmpIPredicate.slt, sweeps, limit)
        scf.ConditionOp(arith.andi(more, _goes_on(change, tolerance)), [sweeps, change])
    return loop


def _goes_on(change: ir.Value, tolerance: float) -> ir.Value:
    """Is a change larger than the tolerance, or no number?"""
    return arith.cmpf(arith.CmpFPredicate.UGT, change, arith.constant(change.type, tolerance))


def _fill(block: ir.Block, body: ir.Block, buffers: dict[str, ir.Value]) -> None:
    """Make a sweep's code the body of a loop."""
    sweeps = block.arguments[0]
    (change,) = members(body, "parc.change")
    with ir.InsertionPoint(block):
        scf.YieldOp([arith.addi(sweeps, index(1)), change.operands[0]])
    change.erase()
    body.arguments[0].replace_all_uses_with(sweeps)
    _take_over(body, block)
    for previous in members(block, "parc.previous"):
        with ir.InsertionPoint(previous):
            value = bufferization.to_tensor(previous.results[0].type, buffers[name_of(previous)], restrict=True)
        previous.results[0].replace_all_uses_with(value)
        previous.erase()
    _store_next(block, buffers)


def _take_over(source: ir.Block, target: ir.Block) -> None:
    """Move operations in front of those of another block."""
    first = target.operations[0].operation
    for op in list(source.operations):
        op.operation.move_before(first)


def _store_next(block: ir.Block, buffers: dict[str, ir.Value]) -> None:
    """Store the arrays at the end of a block: until then, the previous ones are read."""
    for following in members(block, "parc.next"):
        with ir.InsertionPoint(terminator(block)):
            _copy(following.operands[0], buffers[name_of(following)])
        following.erase()


def _return_statistics(main: func.FuncOp, statistics: Sequence[_Statistics]) -> None:
    """Append the numbers of sweeps and the last changes to the results."""
    i64, f64 = ir.IntegerType.get_signless(64), ir.F64Type.get()
    end, new = terminator(main.entry_block), []
    with ir.InsertionPoint(end), end.location:
        for found in statistics:
            change = found.change if found.change.type == f64 else arith.extf(f64, found.change)
            for label, value in (("sweeps", arith.index_cast(i64, found.sweeps)), ("change", change)):
                attributes = {
                    "parc.kind": ir.StringAttr.get("statistic"),
                    "parc.name": ir.StringAttr.get(f"{found.name}.{label}"),
                    "parc.solver": found.solver,
                    "parc.tolerance": found.tolerance,
                }
                new.append((tensor.from_elements(ir.RankedTensorType.get([], value.type), [value]), attributes))
    append_results(main, new)
