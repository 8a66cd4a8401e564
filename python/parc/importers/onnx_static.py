"""An ONNX graph at one choice of sizes: static shapes, computed shapes folded, recurrent operators written out."""

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from parc.errors import CompileError
from parc.importers import onnx_recurrent

#: Larger constants are no shapes, and not worth computing here.
_MAX_FOLDED = 4096
_SHAPE_OPERATORS = ("Shape", "Size")
_NOT_FOLDED = ("RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial", "Bernoulli")


class DoesNotFitError(Exception):
    """The graph does not take inputs of these shapes; the message is ONNX's."""


def specialise(model: ModelProto, shapes: Mapping[str, Sequence[int]]) -> ModelProto:
    """The model with these shapes of its graph's inputs, every shape in it static.

    Raises `DoesNotFitError` when the shapes contradict the graph, and `CompileError` for control flow
    that depends on values and for a recurrent node that cannot be written out.
    """
    static = ModelProto()
    static.CopyFrom(model)
    graph = static.graph
    for value in graph.input:
        _set_shape(value, shapes[value.name])
    for value in graph.output:
        value.type.tensor_type.ClearField("shape")
    del graph.value_info[:]
    while True:
        static = _infer(static)
        changed = _fold(static)
        if not (_expand(static) or changed):
            break
    for node in static.graph.node:
        if any(a.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS) for a in node.attribute):
            raise CompileError(f"node '{node.name}' ({node.op_type}) is not supported: what runs depends on values")
    return static


def _set_shape(value: onnx.ValueInfoProto, shape: Sequence[int]) -> None:
    for dimension, size in zip(value.type.tensor_type.shape.dim, shape, strict=True):
        dimension.dim_value = size


def _infer(model: ModelProto) -> ModelProto:
    try:
        return onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    except onnx.shape_inference.InferenceError as e:
        raise DoesNotFitError(str(e)) from e


def _shapes(graph: GraphProto) -> dict[str, tuple[int, tuple[int, ...]]]:
    """Value -> (element type, shape) of those whose shape is known and static."""
    known = {}
    for value in [*graph.input, *graph.value_info, *graph.output]:
        tensor = value.type.tensor_type
        if tensor.HasField("shape") and all(d.HasField("dim_value") for d in tensor.shape.dim):
            known[value.name] = (tensor.elem_type, tuple(d.dim_value for d in tensor.shape.dim))
    return known


def _fold(model: ModelProto) -> bool:
    """Replace nodes whose result is known now by constants; returns whether there were any."""
    graph = model.graph
    shapes = _shapes(graph)
    constants = {c.name: numpy_helper.to_array(c) for c in graph.initializer}
    kept, folded = [], False
    for node in graph.node:
        if node.op_type == "If" and node.input[0] in constants:
            kept += _branch(node, bool(constants[node.input[0]].reshape(())))
            folded = True
            continue
        values = _evaluate(node, constants, shapes, model)
        if values is None:
            kept.append(node)
            continue
        folded = True
        for name, value in zip(node.output, values, strict=True):
            constants[name] = value
            graph.initializer.append(inline(name, value))
    if folded:
        _replace_nodes(graph, kept)
    return folded


def _branch(node: NodeProto, condition: bool) -> list[NodeProto]:
    """The nodes of the branch that an `If` takes; its initialisers become `Constant` nodes."""
    taken = "then_branch" if condition else "else_branch"
    graph = next(a.g for a in node.attribute if a.name == taken)
    constants = [helper.make_node("Constant", [], [t.name], t.name, value=t) for t in graph.initializer]
    names = zip(graph.output, node.output, strict=True)
    results = [helper.make_node("Identity", [inner.name], [outer], f"{node.name}/{outer}") for inner, outer in names]
    return [*constants, *graph.node, *results]


def _evaluate(
    node: NodeProto,
    constants: Mapping[str, np.ndarray],
    shapes: Mapping[str, tuple[int, tuple[int, ...]]],
    model: ModelProto,
) -> list[np.ndarray] | None:
    """The results of a node that can be computed now, else None."""
    inputs = [name for name in node.input if name]
    if node.op_type in _SHAPE_OPERATORS:
        if inputs[0] not in shapes:
            return None
        feeds = {inputs[0]: np.broadcast_to(np.zeros((), np.float32), shapes[inputs[0]][1])}
    elif node.op_type in _NOT_FOLDED or any(name not in constants for name in inputs):
        return None
    else:
        feeds = {name: constants[name] for name in inputs}
    if any(o in shapes and np.prod(shapes[o][1], dtype=np.int64) > _MAX_FOLDED for o in node.output):
        return None
    graph = helper.make_graph(
        [node],
        "node",
        [helper.make_tensor_value_info(k, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape) for k, v in feeds.items()],
        [helper.make_empty_tensor_value_info(name) for name in node.output],
    )
    single = helper.make_model(graph, opset_imports=model.opset_import)
    try:
        return [np.asarray(v) for v in ReferenceEvaluator(single).run(None, feeds)]
    except (NotImplementedError, RuntimeError, TypeError):  # the reference does not know every operator
        return None


def _expand(model: ModelProto) -> bool:
    """Write the recurrent nodes out whose input's shape is known; returns whether there were any."""
    graph = model.graph
    shapes = _shapes(graph)
    nodes: list[NodeProto] = []
    for node in graph.node:
        if node.op_type not in onnx_recurrent.RECURRENT or node.input[0] not in shapes:
            nodes.append(node)
            continue
        data_type, shape = shapes[node.input[0]]
        emitted = onnx_recurrent.expand(node, shape, data_type)
        nodes += emitted.nodes
        graph.initializer.extend(emitted.constants.values())
    changed = len(nodes) != len(graph.node)
    if changed:
        _replace_nodes(graph, nodes)
    return changed


def _replace_nodes(graph: GraphProto, nodes: Sequence[NodeProto]) -> None:
    nodes = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(nodes)


def inline(name: str, value: np.ndarray) -> TensorProto:
    """A constant in typed fields: torch-mlir writes these into the IR, where those of two traces compare equal.

    `CompileError` for elements of types that torch-mlir takes from files only.
    """
    if value.dtype.kind not in "fbiu" or value.dtype == np.float16:
        raise CompileError(f"constant '{name}' has elements of type {value.dtype}, which are supported in weights only")
    return helper.make_tensor(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape, value.flatten().tolist())
