"""Small helpers on MLIR operations that several passes share."""

import io
from collections.abc import Mapping, Sequence

from torch_mlir import ir
from torch_mlir.dialects import arith, func
from torch_mlir.passmanager import PassManager

from parc.errors import CompileError


def copy_module(module: ir.Module) -> ir.Module:
    """A copy that keeps the places in the user's files, which text does not."""
    code = io.BytesIO()
    module.operation.write_bytecode(code)
    return ir.Module.parse(code.getvalue(), module.context)


def find_function(module: ir.Module, name: str) -> func.FuncOp | None:
    """The function `@name` of the module, if it has a body."""
    for op in module.body.operations:
        if isinstance(op, func.FuncOp) and op.name.value == name and not op.is_external:
            return op
    return None


def entry_functions(module: ir.Module) -> list[func.FuncOp]:
    """The functions that every thread of a team runs: `@main` and, once parameters are hoisted, `@prepare`."""
    found = (find_function(module, name) for name in ("main", "prepare"))
    return [f for f in found if f is not None]


def walk(root: ir.Operation | ir.OpView, *names: str) -> list[ir.OpView]:
    """The operations below `root` in textual order, as a list that survives rewriting; only `names`, when given."""
    found: list[ir.Operation] = []

    def visit(op: ir.Operation) -> ir.WalkResult:
        if not names or op.name in names:
            found.append(op)
        return ir.WalkResult.ADVANCE

    root.operation.walk(visit, ir.WalkOrder.PRE_ORDER)
    return [op.opview for op in found if op != root.operation]


def defining_op(value: ir.Value) -> ir.OpView | None:
    """The operation that `value` is a result of; None for a block argument."""
    owner = value.owner
    return None if isinstance(owner, ir.Block) else owner.opview if isinstance(owner, ir.Operation) else owner


def terminator(block: ir.Block) -> ir.Operation:
    """The last operation of a block."""
    return block.operations[len(block.operations) - 1].operation


def constant_int(value: ir.Value) -> int | None:
    """The value of an integer or index constant."""
    op = defining_op(value)
    return ir.IntegerAttr(op.value).value if isinstance(op, arith.ConstantOp) else None


def is_inside(op: ir.OpView | ir.Operation, *names: str) -> bool:
    """Whether an operation called one of `names` encloses `op`."""
    parent = op.operation.parent
    while parent is not None:
        if parent.operation.name in names:
            return True
        parent = parent.operation.parent
    return False


def members(block: ir.Block, name: str) -> list[ir.Operation]:
    """The operations of a block that are called `name`; not those inside of others."""
    return [op.operation for op in block.operations if op.operation.name == name]


def name_of(op: ir.Operation | ir.OpView) -> str:
    """The attribute `name` of an operation."""
    return str(ir.StringAttr(op.operation.attributes["name"]).value)


def captured_values(op: ir.OpView | ir.Operation) -> list[ir.Value]:
    """The operands of `op`, and of what is nested in it, that are defined outside of it."""
    nested = walk(op)
    inner = {result for child in nested for result in child.operation.results}
    for owner in (op, *nested):
        inner.update(a for region in owner.operation.regions for block in region.blocks for a in block.arguments)
    used = [*op.operation.operands, *(v for child in nested for v in child.operation.operands)]
    return [v for v in used if v not in inner]


def clone_with(op: ir.OpView | ir.Operation, values: dict[ir.Value, ir.Value]) -> ir.Operation:
    """Copy `op` to the insertion point with operands, also nested ones, replaced; enters its results in `values`."""
    copy = op.operation.clone()
    for inner in (copy.opview, *walk(copy)):
        for i, operand in enumerate(inner.operation.operands):
            if operand in values:
                inner.operation.operands[i] = values[operand]
    values.update(zip(op.operation.results, copy.results, strict=True))
    return copy


def argument_kind(attributes: ir.Attribute) -> str:
    """The `parc.kind` of an argument with these attributes; without one it is an input."""
    dictionary = ir.DictAttr(attributes)
    return ir.StringAttr(dictionary["parc.kind"]).value if "parc.kind" in dictionary else "input"


def arguments_of_kind(function: func.FuncOp, kind: str) -> list[ir.BlockArgument]:
    """The arguments of one `parc.kind`, in order."""
    pairs = zip(function.arguments, function.arg_attrs, strict=True)
    return [a for a, attributes in pairs if argument_kind(attributes) == kind]


def symbol_arguments(function: func.FuncOp) -> list[ir.BlockArgument]:
    """The arguments that are symbols, in order."""
    return arguments_of_kind(function, "symbol")


def insert_arguments(function: func.FuncOp, at: int, new: Sequence[tuple[ir.Type, dict[str, str]]]) -> None:
    """Insert arguments of the given types, with string attributes, before argument `at`."""
    block = function.entry_block
    old = list(block.arguments)
    types = [a.type for a in old]
    types[at:at] = [type_ for type_, _ in new]
    attributes = list(function.arg_attrs)
    attributes[at:at] = [ir.DictAttr.get({k: ir.StringAttr.get(v) for k, v in d.items()}) for _, d in new]
    # Arguments can only be appended: append the whole new list and drop the old one.
    added = [block.add_argument(t, function.location) for t in types]
    for before, after in zip(old, added[:at] + added[at + len(new) :], strict=True):
        before.replace_all_uses_with(after)
    for _ in old:
        block.erase_argument(0)
    function.attributes["function_type"] = ir.TypeAttr.get(ir.FunctionType.get(types, function.type.results))
    function.arg_attrs = ir.ArrayAttr.get(attributes)


def result_attributes(function: func.FuncOp) -> list[dict[str, ir.Attribute]]:
    """The attributes of each result."""
    if "res_attrs" not in function.attributes:
        return [{} for _ in function.type.results]
    return [{named.name: named.attr for named in ir.DictAttr(a)} for a in function.attributes["res_attrs"]]


def set_results(
    function: func.FuncOp, values: Sequence[ir.Value], attributes: Sequence[Mapping[str, ir.Attribute]]
) -> None:
    """Make a function return these values, with these attributes."""
    end = terminator(function.entry_block)
    with ir.InsertionPoint(end), end.location:
        func.ReturnOp(values)
    end.erase()
    type_ = ir.FunctionType.get(function.type.inputs, [v.type for v in values])
    function.attributes["function_type"] = ir.TypeAttr.get(type_)
    function.attributes["res_attrs"] = ir.ArrayAttr.get([ir.DictAttr.get(dict(a)) for a in attributes])


def append_results(function: func.FuncOp, new: Sequence[tuple[ir.Value, Mapping[str, ir.Attribute]]]) -> None:
    """Make a function return more values, with their attributes, behind all others."""
    values = [*terminator(function.entry_block).operands, *(value for value, _ in new)]
    set_results(function, values, [*result_attributes(function), *(attributes for _, attributes in new)])


def run_pipeline(module: ir.Module, pipeline: str, stage: str) -> None:
    """Run upstream passes; a failure is a `CompileError` with MLIR's own diagnostic and the compiler's `stage`."""
    try:
        PassManager.parse(f"builtin.module({pipeline})", module.context).run(module.operation)
    except ir.MLIRError as error:
        diagnostic = error.error_diagnostics[0] if error.error_diagnostics else None
        raise CompileError(
            f"{stage}: {diagnostic.message if diagnostic else error}", diagnostic.location if diagnostic else None
        ) from error
