"""`hoist-parameters`: move what depends on parameters alone out of `@main`, into `@prepare`."""

from dataclasses import dataclass

from torch_mlir import ir
from torch_mlir.dialects import arith, func, tensor

from parc.codegen.irtools import argument_kind, arguments_of_kind, captured_values, clone_with, find_function
from parc.errors import CompileError
from parc.passbase import Pass

# Operations without effects outside their results; anything else stays in @main.
PURE_DIALECTS = ("arith", "math", "complex", "affine", "tensor", "linalg")
# These cost nothing at run time: hoisting them would only copy the parameter.
VIEWS = (tensor.CollapseShapeOp, tensor.ExpandShapeOp, tensor.CastOp)


@dataclass
class HoistParameters(Pass):
    """Move what depends on parameters alone out of `@main`, into `@prepare`.

    Dense constants count as parameters.

        func.func @main(%x, %w {parc.kind = "parameter"}) {
          %wt = linalg.transpose ins(%w)
          %y = linalg.matmul ins(%x, %wt)

        func.func @prepare(%w {parc.kind = "parameter"}) -> tensor<8x16xf32> {
          %wt = linalg.transpose ins(%w)
          return %wt
        func.func @main(%x, %w {parc.kind = "parameter"}, %wt {parc.kind = "prepared"}) {
          %y = linalg.matmul ins(%x, %wt)
    """

    name = "hoist-parameters"

    def run(self, module: ir.Module) -> None:
        main = find_function(module, "main")
        if main is None:
            raise CompileError("the module has no function @main")
        with module.context, main.location:
            prepared = _prepared_values(main)
            types = [ir.TypeAttr.get(v.type) for v in prepared]
            module.operation.attributes["parc.prepared"] = ir.ArrayAttr.get(types)
            if prepared:
                _build_prepare(module, main, prepared)
                _take_as_arguments(main, prepared)


def _prepared_values(main: func.FuncOp) -> list[ir.Value]:
    """The values to prepare: computed from parameters alone and used by something that is not."""
    kinds = _classify(main)
    needed: dict[ir.Value, bool] = {}
    for op in reversed(list(main.entry_block.operations)):
        for result in op.operation.results:
            needed[result] = any(_stays(_top_level(main, use.owner), kinds, needed) for use in result.uses)
    return [v for v, kind in kinds.items() if kind == "prepared" and needed[v]]


def _classify(main: func.FuncOp) -> dict[ir.Value, str]:
    """What is known before a call, by value.

    "parameter": a parameter or a constant table; "constant": computed from scalars alone; "prepared": computed from
    parameters; "view": of a parameter or a prepared value.
    """
    kinds = {argument: "parameter" for argument in arguments_of_kind(main, "parameter")}
    for op in main.entry_block.operations:
        if not op.operation.results or op.operation.name.split(".")[0] not in PURE_DIALECTS:
            continue
        inputs = captured_values(op)
        if any(v not in kinds for v in inputs):
            continue
        if all(kinds[v] == "constant" for v in inputs):
            kind = "parameter" if _is_table(op) else "constant"
        else:
            kind = "view" if isinstance(op, VIEWS) else "prepared"
        for result in op.operation.results:
            kinds[result] = kind
    return kinds


def _is_table(op: ir.OpView) -> bool:
    """Whether `op` is a constant tensor of more than one value."""
    if not isinstance(op, arith.ConstantOp) or not isinstance(op.operation.results[0].type, ir.RankedTensorType):
        return False
    return not (isinstance(op.value, ir.DenseElementsAttr) and op.value.is_splat)


def _top_level(main: func.FuncOp, op: ir.OpView | ir.Operation) -> ir.Operation:
    """The operation of the function's own block that is `op` or encloses it."""
    current = op.operation
    while current.parent.operation != main.operation:
        current = current.parent.operation
    return current


def _stays(user: ir.Operation, kinds: dict[ir.Value, str], needed: dict[ir.Value, bool]) -> bool:
    """Whether `user` remains in `@main` (an operation without users goes)."""
    if not user.results or user.results[0] not in kinds:
        return True
    return kinds[user.results[0]] != "prepared" and any(needed[r] for r in user.results)


def _build_prepare(module: ir.Module, main: func.FuncOp, prepared: list[ir.Value]) -> None:
    """Add `@prepare` with a copy of all that `prepared` is computed from."""
    arguments = arguments_of_kind(main, "parameter")
    attributes = [a for a in main.arg_attrs if argument_kind(a) == "parameter"]
    type_ = ir.FunctionType.get([a.type for a in arguments], [v.type for v in prepared])
    with ir.InsertionPoint(main):
        prepare = func.FuncOp("prepare", type_)
    prepare.arg_attrs = ir.ArrayAttr.get(attributes)
    block = prepare.add_entry_block()
    copies: dict[ir.Value, ir.Value] = dict(zip(arguments, block.arguments, strict=True))
    slice_ = _backward_slice(main, prepared)
    with ir.InsertionPoint(block):
        for op in main.entry_block.operations:
            if op.operation in slice_:
                clone_with(op, copies)
        func.ReturnOp([copies[v] for v in prepared])


def _backward_slice(main: func.FuncOp, values: list[ir.Value]) -> set[ir.Operation]:
    """The operations of the function's own block that `values` are computed by."""
    slice_: set[ir.Operation] = set()
    pending = list(values)
    while pending:
        owner = pending.pop().owner
        if not isinstance(owner, ir.Block) and owner.operation not in slice_:
            slice_.add(owner.operation)
            pending.extend(captured_values(owner.operation.opview))
    return slice_


def _take_as_arguments(main: func.FuncOp, prepared: list[ir.Value]) -> None:
    """Replace `prepared` by new arguments of `@main` and erase what only they needed."""
    attributes = list(main.arg_attrs)
    slice_ = _backward_slice(main, prepared)
    for value in prepared:
        value.replace_all_uses_with(main.entry_block.add_argument(value.type, value.location))
        attributes.append(ir.DictAttr.get({"parc.kind": ir.StringAttr.get("prepared")}))
    type_ = ir.FunctionType.get([a.type for a in main.entry_block.arguments], main.type.results)
    main.attributes["function_type"] = ir.TypeAttr.get(type_)
    main.arg_attrs = ir.ArrayAttr.get(attributes)
    for op in reversed(list(main.entry_block.operations)):
        if op.operation in slice_ and not any(any(True for _ in r.uses) for r in op.operation.results):
            op.operation.erase()
