"""Imports `.mlir` and `.mlirbc` files: text or bytecode of any stage.

* the torch dialect, as torch-mlir's importers write it, and linalg on tensors: static, traced at
  several sizes (docs/architecture.md, "Traces"), or with named dynamic sizes (`instantiate-sizes`);
* `@main` with systems, scheduled or not, as `parc-opt` prints it.

Values of parameters are not in the file: they are zero until `load_state_dict` gives them.
"""

import os

import torch
from torch import Tensor
from torch_mlir import ir
from torch_mlir.dialects import func
from torch_mlir.dialects import torch as torch_dialect

from parc.call_structure import NamedTensors
from parc.codegen.irtools import walk
from parc.errors import CompileError
from parc.importers.imported import Imported
from parc.importers.torch_model import lower_to_linalg
from parc.pipelines import diagnostic_location

_DTYPES = {
    "f64": torch.float64, "f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16, "i1": torch.bool,
    "i8": torch.int8, "i16": torch.int16, "i32": torch.int32, "i64": torch.int64,
}  # fmt: skip


def import_mlir(path: str | os.PathLike[str], context: ir.Context) -> Imported:
    """Read a file; raises `CompileError`, with `file:line:column`, for what does not parse or verify."""
    torch_dialect.register_dialect(context)
    inputs: list[str] = []
    parameters: dict[str, Tensor] = {}
    with context, ir.Location.unknown():
        module = _parse(os.fspath(path), context)
        lower_torch(module)
        function = _program(module, os.fspath(path))
        for i, (argument, attribute) in enumerate(zip(function.arguments, function.arg_attrs, strict=True)):
            named = ir.DictAttr(attribute)
            kind = ir.StringAttr(named["parc.kind"]).value if "parc.kind" in named else "input"
            name = ir.StringAttr(named["parc.name"]).value if "parc.name" in named else f"input{i}"
            if kind == "input":
                inputs.append(name)
            elif kind == "parameter":
                parameters[name] = _zeros(name, argument, function)
    return Imported(module, NamedTensors(tuple(inputs)), parameters)


def lower_torch(module: ir.Module) -> None:
    """Take a module in the torch dialect to linalg on tensors; leaves others alone."""
    if any(op.operation.name.startswith(("torch.", "torch_c.")) for op in walk(module.operation)):
        lower_to_linalg(module)


def _parse(path: str, context: ir.Context) -> ir.Module:
    try:
        return ir.Module.parseFile(path, context)
    except ir.MLIRError as e:
        for diagnostic in e.error_diagnostics:
            raise CompileError(diagnostic.message.strip(), diagnostic_location(diagnostic)) from e
        raise CompileError(str(e).strip(), path) from e


def _program(module: ir.Module, path: str) -> func.FuncOp:
    """The function that says what the program takes: `@main`, a trace, or the only function, which becomes `@main`."""
    functions = [op for op in module.body.operations if isinstance(op, func.FuncOp) and not op.is_external]
    public = [f for f in functions if "sym_visibility" not in f.attributes]
    for name in ("main", "main_0"):
        for function in public:
            if function.name.value == name:
                return function
    if len(public) != 1:
        names = ", ".join(f"@{f.name.value}" for f in public) or "none"
        raise CompileError(f"expected a function @main; the file has {names}", path)
    public[0].attributes["sym_name"] = ir.StringAttr.get("main")
    return public[0]


def _zeros(name: str, argument: ir.Value, function: func.FuncOp) -> Tensor:
    type_ = argument.type
    if not isinstance(type_, ir.RankedTensorType) or not type_.has_static_shape:
        raise CompileError(f"parameter '{name}' is of type {type_}: its sizes have to be known", function.location)
    dtype = _DTYPES.get(str(type_.element_type))
    if dtype is None:
        raise CompileError(f"parameter '{name}' has elements of type {type_.element_type}", function.location)
    return torch.zeros(type_.shape, dtype=dtype)
