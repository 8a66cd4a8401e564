"""`lower-asserts`: a failed check is noted in the arena, and what it guards stays inside its buffers."""

from dataclasses import dataclass

from torch_mlir import ir
from torch_mlir.dialects import arith, func, memref, scf

from parc.codegen.irtools import arguments_of_kind, defining_op, entry_functions, walk
from parc.codegen.loops import index
from parc.passbase import Pass


@dataclass
class LowerAsserts(Pass):
    """A failed check is noted in the arena, and what it guards stays inside its buffers.

    A thread cannot leave a team's program alone. So a `cf.assert` that fails stores the number of its message
    (`parc.assertions`, from 1) in the arena's first word, and loads after it at computed indices are clamped.

        %i = arith.index_cast %token                       %i = arith.index_cast %token
        cf.assert %ok, "index out of range"                scf.if %not_ok { memref.store %c1, %status[%c0] }
        %e = memref.load %table[%i, %j]                    %e = memref.load %table[%clamped, %j]
    """

    name = "lower-asserts"

    def run(self, module: ir.Module) -> None:
        messages: list[str] = []
        with module.context, ir.Location.unknown():
            for function in entry_functions(module):
                asserts = walk(function, "cf.assert")
                if asserts:
                    _clamp_loads(asserts)
                    _store_failures(function, asserts, messages)
            attributes = [ir.StringAttr.get(m) for m in messages]
            module.operation.attributes["parc.assertions"] = ir.ArrayAttr.get(attributes)


def _store_failures(function: func.FuncOp, asserts: list[ir.OpView], messages: list[str]) -> None:
    """Replace the asserts of one function; adds their messages to `messages`."""
    (arena,) = arguments_of_kind(function, "arena")
    i64 = ir.IntegerType.get_signless(64)
    with ir.InsertionPoint.at_block_begin(function.entry_block):
        status = memref.ViewOp(ir.MemRefType.get([1], i64), arena, index(0), []).result
    for check in asserts:
        message = ir.StringAttr(check.attributes["msg"]).value
        if message not in messages:
            messages.append(message)
        with ir.InsertionPoint(check), check.location:
            ok = check.operation.operands[0]
            failed = arith.xori(ok, arith.constant(ir.IntegerType.get_signless(1), 1))
            branch = scf.IfOp(failed)
            with ir.InsertionPoint(branch.then_block):
                memref.store(arith.constant(i64, messages.index(message) + 1), status, [index(0)])
                scf.YieldOp([])
        check.operation.erase()


def _clamp_loads(asserts: list[ir.OpView]) -> None:
    """Clamp the indices from data of loads in the blocks of the asserts."""
    blocks = []
    for check in asserts:
        if check.operation.block not in blocks:
            blocks.append(check.operation.block)
    for block in blocks:
        for op in list(block.operations):
            if isinstance(op, memref.LoadOp):
                _clamp(op)


def _clamp(load: memref.LoadOp) -> None:
    buffer, *positions = load.operation.operands
    for d, position in enumerate(positions):
        if isinstance(defining_op(position), arith.IndexCastOp):
            with ir.InsertionPoint(load), load.location:
                last = arith.subi(memref.dim(buffer, index(d)), index(1))
                clamped = arith.minsi(arith.maxsi(position, index(0)), last)
            load.operation.operands[1 + d] = clamped
