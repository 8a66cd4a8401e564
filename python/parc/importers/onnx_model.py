"""Imports `.onnx` files.

The graph is specialised to a few small sizes (`onnx_static`) and each lowered by torch-mlir's ONNX
front end to one trace.  Dimensions with a name in the file (`dim_param`) are symbols of that name;
a dimension with neither name nor value gets a symbol of its own.  Floating-point initialisers are
the program's parameters, other constants are part of the code.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx
import torch
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import GraphProto, ModelProto, TensorProto, ValueInfoProto, helper, numpy_helper
from torch import Tensor
from torch_mlir import ir
from torch_mlir.dialects import torch as torch_dialect
from torch_mlir.extras.onnx_importer import ModelInfo, NodeImporter, OnnxImportError
from torch_mlir.passmanager import PassManager

from parc.call_structure import NamedTensors
from parc.errors import CompileError
from parc.importers.imported import Imported
from parc.importers.onnx_static import DoesNotFitError, inline, specialise
from parc.importers.shapes import Extent, InputShapes, Symbol
from parc.importers.torch_model import label_traces, lower_to_linalg
from parc.pipelines import diagnostic_location
from parc.recurrence.sizes import OTHER_BASE, TIME_BASE

_TO_TORCH = "builtin.module(func.func(convert-torch-onnx-to-torch))"
#: torch-mlir lowers the operators as they are defined from opset 13 on; older files are converted.
_LEAST_OPSET, _OPSET = 13, 17
#: A `Constant` node with more elements holds data, which becomes a parameter.
_MAX_INLINE = 64
_UNSIGNED = (TensorProto.UINT8, TensorProto.UINT16, TensorProto.UINT32, TensorProto.UINT64)
_FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16)
#: Float inputs that say how large a result is, and so have to be known.
_SHAPE_INPUTS = {"Resize": (1, 2, 3), "Upsample": (1,), "Range": (0, 1, 2)}
#: Sizes at which a model does not run are doubled up to this limit.
_MAX_BASE = 256


@dataclass(frozen=True)
class _Graph:
    """A model whose weights have become inputs: `inputs` are the user's, then come the `parameters`."""

    model: ModelProto
    inputs: tuple[str, ...]
    parameters: Mapping[str, Tensor]

    def specialise(self, shapes: InputShapes, sizes: Sequence[int]) -> ModelProto:
        """The static graph for these values of the symbols."""
        named = dict(zip(self.inputs, shapes.at(sizes), strict=True))
        return specialise(self.model, named | {name: tuple(t.shape) for name, t in self.parameters.items()})


def import_onnx(path: str | os.PathLike[str], context: ir.Context, *, stage: str = "linalg") -> Imported:
    """Read a model file into traces in linalg form, or in the torch dialect with `stage="torch"`.

    Raises `CompileError` for a file that is no ONNX model, an operator that cannot be lowered
    (with its node's name) and shapes that fit at no small size.
    """
    model = _load(str(path))
    inputs = _inputs(model.graph)
    shapes = _shapes(inputs)
    parameters = _take_parameters(model.graph)
    graph = _Graph(model, tuple(v.name for v in inputs), parameters)
    try:
        shapes, first = _with_bases(graph, shapes)
    except DoesNotFitError as e:
        raise CompileError(f"the shapes in the file do not fit together: {_first_line(e)}", str(path)) from e
    sizes = shapes.trace_sizes()
    models = [first, *(graph.specialise(shapes, s) for s in sizes[1:])]
    module = _emit(models, context)
    _lower(module, models, stage)
    label_traces(module, sizes, [s.name for s in shapes.symbols], graph.inputs, list(parameters))
    results = [(f"result{i}", v) for i, v in enumerate(first.graph.output)]
    typed = [*zip(graph.inputs, inputs, strict=True), *results]
    unsigned = frozenset(name for name, v in typed if v.type.tensor_type.elem_type in _UNSIGNED)
    return Imported(module, NamedTensors(graph.inputs), parameters, unsigned=unsigned)


def _load(path: str) -> ModelProto:
    """Read, check and if need be convert a file; weights in files beside it are read too."""
    try:
        model = onnx.load(path)
        onnx.checker.check_model(model)
    except DecodeError as e:
        raise CompileError("cannot be read as an ONNX model: the file is damaged or of another kind", path) from e
    except onnx.checker.ValidationError as e:
        raise CompileError(f"is not a valid ONNX model: {_first_line(e)}", path) from e
    except FileNotFoundError as e:
        if not os.path.exists(path):
            raise
        raise CompileError(f"the weights are in another file, which is missing: {e.filename}", path) from e
    if not model.graph.output:
        raise CompileError("is not a valid ONNX model: it has no results", path)
    opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)
    if opset < _LEAST_OPSET:
        try:
            model = onnx.version_converter.convert_version(model, _OPSET)
        except (RuntimeError, ValueError) as e:
            raise CompileError(f"cannot be converted from opset {opset} to {_OPSET}: {_first_line(e)}", path) from e
    _name_nodes(model.graph, "")
    return model


def _name_nodes(graph: GraphProto, prefix: str) -> None:
    """Give every node without a name one, so that messages can speak of it."""
    for i, node in enumerate(graph.node):
        node.name = node.name or f"{prefix}{node.op_type}_{i}"
        for attribute in node.attribute:
            _name_nodes(attribute.g, f"{node.name}/{attribute.name}/")


def _inputs(graph: GraphProto) -> list[ValueInfoProto]:
    """The inputs that a caller gives: old files list the initialisers among the inputs too."""
    initialised = {t.name for t in graph.initializer}
    inputs = [v for v in graph.input if v.name not in initialised]
    for value in inputs:
        if not value.type.tensor_type.HasField("shape"):
            raise CompileError(f"input '{value.name}' is not a tensor of a known number of dimensions")
    del graph.input[:]
    graph.input.extend(inputs)
    return inputs


def _shapes(inputs: Sequence[ValueInfoProto]) -> InputShapes:
    """One extent a dimension, from the names and numbers in the file."""
    symbols: dict[str, Symbol] = {}
    rows = []
    for value in inputs:
        row = []
        for i, dimension in enumerate(value.type.tensor_type.shape.dim):
            if dimension.HasField("dim_value"):
                row.append(Extent(None, offset=dimension.dim_value))
            else:
                name = dimension.dim_param or f"{value.name}_{i}"
                symbols.setdefault(name, Symbol(name, OTHER_BASE))
                row.append(Extent(name, 1))
        rows.append(tuple(row))
    return InputShapes(tuple(symbols.values()), tuple(rows))


def _take_parameters(graph: GraphProto) -> dict[str, Tensor]:
    """Turn the weights into inputs of the graph, and give the other constants their inline form."""
    fixed = {n.input[i] for n in graph.node for i in _SHAPE_INPUTS.get(n.op_type, ()) if i < len(n.input)}
    parameters: dict[str, Tensor] = {}
    constants = {t.name: (t, 0) for t in graph.initializer}
    nodes = []
    for node in graph.node:
        value = next((a.t for a in node.attribute if a.name == "value"), None)
        if node.op_type == "Constant" and value is not None:
            constants[node.output[0]] = (value, _MAX_INLINE)
        else:
            nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    kept = []
    for name, (tensor, limit) in constants.items():
        if tensor.data_type in _FLOATS and tensor.dims and np.prod(tensor.dims) > limit and name not in fixed:
            parameters[name] = torch.from_numpy(numpy_helper.to_array(tensor).copy())
            graph.input.append(helper.make_tensor_value_info(name, tensor.data_type, tensor.dims))
        else:
            kept.append(inline(name, numpy_helper.to_array(tensor)))
    del graph.initializer[:]
    graph.initializer.extend(kept)
    return parameters


def _with_bases(graph: _Graph, shapes: InputShapes) -> tuple[InputShapes, ModelProto]:
    """Find sizes to begin the traces at, longer for the symbols that a loop runs over; also the graph there.

    Dimensions without a name that only fit when they are equal become one symbol.
    """
    size = OTHER_BASE
    while (first := _try(graph, shapes, [size] * len(shapes.symbols))) is None:
        size *= 2
        if not shapes.symbols or size > _MAX_BASE:
            graph.specialise(shapes, [size] * len(shapes.symbols))
    looped: dict[str, bool] = {}
    while left := [s.name for s in shapes.symbols if s.name not in looped]:
        longer = _grown(graph, shapes, left[0], size)
        if longer is None:
            shapes = _joined(graph, shapes, left[0], size)
        else:
            looped[left[0]] = len(longer.graph.node) != len(first.graph.node)
    symbols = [replace(s, base=max(size, TIME_BASE) if looped[s.name] else size) for s in shapes.symbols]
    shapes = replace(shapes, symbols=tuple(symbols))
    return shapes, graph.specialise(shapes, shapes.trace_sizes()[0])


def _try(graph: _Graph, shapes: InputShapes, sizes: Sequence[int]) -> ModelProto | None:
    """The graph at these sizes, or None where it does not take them."""
    try:
        return graph.specialise(shapes, sizes)
    except DoesNotFitError:
        return None


def _grown(graph: _Graph, shapes: InputShapes, name: str, size: int) -> ModelProto | None:
    """The graph with all symbols at `size` but this one, which is one larger."""
    return _try(graph, shapes, [size + (s.name == name) for s in shapes.symbols])


def _joined(graph: _Graph, shapes: InputShapes, name: str, size: int) -> InputShapes:
    """The symbol `name`, which cannot change alone, made one with another that it can change with."""
    for other in shapes.symbols:
        if other.name == name:
            continue
        rows = tuple(
            tuple(replace(e, symbol=name) if e.symbol == other.name else e for e in row) for row in shapes.extents
        )
        joined = InputShapes(tuple(s for s in shapes.symbols if s != other), rows)
        if _grown(graph, joined, name, size) is not None:
            return joined
    raise CompileError(
        f"the dimension '{name}' is not fixed in the file, but the shapes fit together at one size only; fix it there"
    )


def _emit(models: Sequence[ModelProto], context: ir.Context) -> ir.Module:
    """One module with a function `@main_i` in torch-mlir's ONNX form for every specialised model."""
    torch_dialect.register_dialect(context)
    module = ir.Module.create(ir.Location.unknown(context))
    for i, model in enumerate(models):
        model.graph.name = f"main_{i}"
        info = ModelInfo(model)
        try:
            NodeImporter.define_function(info.main_graph, module.operation).import_all()
        except OnnxImportError as e:
            raise CompileError(f"torch-mlir cannot import this model: {_first_line(e)}") from e
    return module


def _lower(module: ir.Module, models: Sequence[ModelProto], stage: str) -> None:
    """ONNX form -> torch dialect -> linalg on tensors; an operator without a lowering is named with its node."""
    try:
        PassManager.parse(_TO_TORCH, module.context).run(module.operation)
        if stage == "linalg":
            lower_to_linalg(module)
    except ir.MLIRError as e:
        raise CompileError(_unsupported(e, models)) from e
    except CompileError as e:
        cause = e.__cause__
        raise CompileError(_unsupported(cause, models) if isinstance(cause, ir.MLIRError) else str(e)) from e


def _unsupported(error: ir.MLIRError, models: Sequence[ModelProto]) -> str:
    """The node that a lowering stopped at: torch-mlir's locations are nodes' names."""
    types = {node.name: node.op_type for model in models for node in model.graph.node}
    for diagnostic in error.error_diagnostics:
        location = diagnostic_location(diagnostic)
        name = location.name_str if isinstance(location, ir.NameLoc) else ""
        if name in types:
            return f"node '{name}' ({types[name]}) is not supported"
    return _first_line(error)


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).strip().split("\n", 1)[0]
