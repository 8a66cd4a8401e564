"""`bufferize`: tensors become buffers and results become arguments."""

from dataclasses import dataclass

from torch_mlir import ir
from torch_mlir.dialects import arith, func, memref

from parc.codegen.irtools import (
    captured_values,
    clone_with,
    constant_int,
    defining_op,
    entry_functions,
    run_pipeline,
    walk,
)
from parc.codegen.sizes import name_argument_sizes
from parc.errors import CompileError
from parc.passbase import Pass

# Outside scf: what bufferization has no rule for, with the dialects' own words for it.
BUFFERIZE = (
    "eliminate-empty-tensors,"
    "one-shot-bufferize{bufferize-function-boundaries function-boundary-type-conversion=identity-layout-map"
    " unknown-type-conversion=identity-layout-map allow-unknown-ops},"
    # Sizes of copies and of joined tensors are taken from views: say them in terms of the views' sources.
    "resolve-shaped-type-result-dims"
)


@dataclass
class Bufferize(Pass):
    """Tensors become buffers and results become arguments.

    func.func @main(%x: tensor<?xf32>) -> tensor<?xf32> {
      %e = tensor.empty(%n)
      %y = linalg.exp ins(%x) outs(%e)
      return %y

    func.func @main(%x: memref<?xf32>, %y: memref<?xf32> {parc.kind = "result"}) {
      linalg.exp ins(%x) outs(%y)
      return
    """

    name = "bufferize"

    def run(self, module: ir.Module) -> None:
        functions = entry_functions(module)
        with module.context:
            for function in functions:
                _forbid_writes(function)
                _separate_reads(function)
                _separate_scratch(function)
            run_pipeline(module, BUFFERIZE, self.name)
            for function in functions:
                _name_collapsed_sizes(function)
                name_argument_sizes(function)
            run_pipeline(module, "canonicalize,cse", self.name)
            _refuse_tensors(module)
            for function in functions:
                _results_to_arguments(function)


def _forbid_writes(function: func.FuncOp) -> None:
    """Arguments belong to the caller: bufferization has to copy before it writes to one."""
    attributes = []
    for argument, attribute in zip(function.arguments, function.arg_attrs, strict=True):
        named = {n.name: n.attr for n in ir.DictAttr(attribute)}
        if isinstance(argument.type, ir.RankedTensorType):
            named["bufferization.writable"] = ir.BoolAttr.get(False)
        attributes.append(ir.DictAttr.get(named))
    function.arg_attrs = ir.ArrayAttr.get(attributes)


def _separate_reads(function: func.FuncOp) -> None:
    """Give every team buffers of its own of the tensors that it reads.

    Bufferization takes `to_buffer` for the read: of one that two teams share it would miss what the second one reads.
    """
    for team in walk(function, "parc.team"):
        copies: dict[ir.Value, ir.Value] = {}
        for value in captured_values(team):
            _copy_view(value, team, copies)
        for op in walk(team):
            for i, operand in enumerate(op.operation.operands):
                if operand in copies:
                    op.operation.operands[i] = copies[operand]


def _copy_view(value: ir.Value, before: ir.OpView, copies: dict[ir.Value, ir.Value]) -> bool:
    """Copy a view of a tensor's buffer to in front of an operation; False for other values."""
    op = defining_op(value)
    if value in copies:
        return True
    if op is None or not isinstance(value.type, ir.MemRefType):
        return False
    if op.operation.name != "bufferization.to_buffer":
        # Only the source can be such a view.
        if not op.operation.name.startswith("memref.") or not op.operation.operands:
            return False
        if not _copy_view(op.operation.operands[0], before, copies):
            return False
    with ir.InsertionPoint(before):
        clone_with(op, copies)
    return True


def _separate_scratch(function: func.FuncOp) -> None:
    """Give every operation that computes into an empty or filled tensor one of its own, next to it.

    `eliminate-empty-tensors` lets one user's result take the place of a shared one, which the others then read; and
    what a team computes into a tensor from outside of it, all its threads would compute in one buffer.
    """
    for op in reversed(walk(function, "tensor.empty", "linalg.fill")):
        for use in list(op.operation.results[0].uses):
            user = use.owner.operation
            with ir.InsertionPoint(user):
                user.operands[use.operand_number] = clone_with(op, {}).results[0]
        op.operation.erase()


def _name_collapsed_sizes(function: func.FuncOp) -> None:
    """The extent of a collapsed dimension is the product of those that it is made of; upstream leaves it as it is."""
    pending = walk(function, "memref.dim")
    while pending:
        op = pending.pop()
        source, position = op.operation.operands
        view, dimension = defining_op(source), constant_int(position)
        if not isinstance(view, memref.CollapseShapeOp) or dimension is None:
            continue
        buffer = view.operation.operands[0]
        size = None
        with ir.InsertionPoint(op), op.location:
            for d in view.operation.attributes["reassociation"][dimension]:
                extent = memref.DimOp(buffer, arith.constant(ir.IndexType.get(), d.value))
                pending.append(extent)
                size = extent.result if size is None else arith.muli(size, extent.result)
        op.operation.results[0].replace_all_uses_with(size)
        op.operation.erase()


def _refuse_tensors(module: ir.Module) -> None:
    """Name the first operation that bufferization left on tensors: there are conversions around it."""
    for conversion in walk(module.operation, "bufferization.to_tensor", "bufferization.to_buffer"):
        value = conversion.operation.operands[0]
        others = [use.owner for use in conversion.operation.results[0].uses]
        if conversion.operation.name == "bufferization.to_buffer" and not isinstance(value.owner, ir.Block):
            others = [value.owner]
        op = (others or [conversion])[0].operation
        raise CompileError(f"the operation '{op.name}' is not supported on the CPU", op.location)


def _results_to_arguments(function: func.FuncOp) -> None:
    """Append one argument per result and write the results there instead of returning them."""
    block = function.entry_block
    terminator = block.operations[len(block.operations) - 1]
    attributes = [{n.name: n.attr for n in ir.DictAttr(a)} for a in function.arg_attrs]
    results = (
        list(ir.ArrayAttr(function.attributes["res_attrs"]))
        if "res_attrs" in function.attributes
        else [ir.DictAttr.get({}) for _ in terminator.operation.operands]
    )
    for number, attribute in enumerate(results):
        # Read only now: a buffer that is returned twice is the first result's argument by the second time.
        value = terminator.operation.operands[number]
        with terminator.location:
            type_ = _contiguous(value.type)
            argument = block.add_argument(type_, value.location)
        attributes.append({n.name: n.attr for n in ir.DictAttr(attribute)} | {"parc.kind": ir.StringAttr.get("result")})
        owner = defining_op(value)
        if isinstance(owner, memref.AllocOp) and owner.operation.block == block and value.type == type_:
            # The first result that owns a buffer computes into it; the same buffer returned again is copied.
            value.replace_all_uses_with(argument)
            owner.operation.erase()
        else:
            with ir.InsertionPoint(terminator), terminator.location:
                _store(value, argument)
    with ir.InsertionPoint(terminator), terminator.location:
        func.ReturnOp([])
    terminator.operation.erase()
    if "res_attrs" in function.attributes:
        del function.attributes["res_attrs"]
    type_ = ir.FunctionType.get([a.type for a in block.arguments], [])
    function.attributes["function_type"] = ir.TypeAttr.get(type_)
    function.arg_attrs = ir.ArrayAttr.get([ir.DictAttr.get(a) for a in attributes])


def _contiguous(type_: ir.Type) -> ir.MemRefType:
    """The type of the caller's buffer for a result: a scalar result is a buffer of rank 0."""
    if isinstance(type_, ir.MemRefType):
        return ir.MemRefType.get(type_.shape, type_.element_type)
    return ir.MemRefType.get([], type_)


def _store(value: ir.Value, argument: ir.Value) -> None:
    if isinstance(value.type, ir.MemRefType):
        memref.CopyOp(value, argument)
    else:
        memref.StoreOp(value, argument, [])
