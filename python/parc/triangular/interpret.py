"""Runs a static trace on `Elements`: on which elements of one argument does each element of its results depend?"""

from collections.abc import Callable, Sequence

import numpy as np
from torch_mlir import ir
from torch_mlir.dialects import func

from parc.codegen.irtools import captured_values
from parc.triangular.elements import Elements, union, whole
from parc.triangular.moves import moved_result
from parc.triangular.scalars import numpy_type, scalar_rule
from parc.triangular.structured import structured_results

Watch = Callable[[ir.Operation, Elements, bool], None]
"""Gets an operation, what is known of its first result, and whether the operation is one that this package knows."""


def interpret(function: func.FuncOp, arguments: Sequence[Elements], watch: Watch | None = None) -> list[Elements]:
    """What is known of the results of a function, from what is known of its arguments.

    An operation that this package does not know gives results whose elements depend on everything that it reads.
    """
    block = function.entry_block
    known: dict[ir.Value, Elements] = dict(zip(block.arguments, arguments, strict=True))
    operations = list(block.operations)
    reads = [captured_values(op) for op in operations]
    last = {value: n for n, values in enumerate(reads) for value in values}
    for n, op in enumerate(operations):
        if op.operation.name == "func.return":
            return [known[v] for v in op.operands]
        found = _results(op, known.__getitem__)
        results = found if found is not None else _anything(op, [whole(known[v]) for v in reads[n]])
        known.update(zip(op.operation.results, results, strict=True))
        if watch is not None and results:
            watch(op.operation, results[0], found is not None)
        for value in reads[n]:
            if last[value] == n:
                known.pop(value, None)
    raise ValueError("the function does not return")


def _results(op: ir.OpView, lookup: Callable[[ir.Value], Elements]) -> list[Elements] | None:
    """What is known of the results of an operation; None where the operation is not known."""
    operation = op.operation
    dialect = operation.name.split(".")[0]
    found: Elements | None = None
    if operation.name == "arith.constant":
        found = constant(operation.attributes["value"], operation.results[0].type)
    elif dialect == "linalg":
        return structured_results(op, lookup)
    elif dialect == "tensor":
        found = moved_result(operation, lookup)
    elif dialect in ("arith", "math") and len(operation.results) == 1:
        found = scalar_rule(operation, [lookup(v) for v in operation.operands])
    return None if found is None else [found]


def _anything(op: ir.OpView, read: Sequence[Elements]) -> list[Elements]:
    """Results whose elements depend on all that is read, given as single elements."""
    bits = union(read)
    results = op.operation.results
    shapes = [r.type.shape if isinstance(r.type, ir.ShapedType) else () for r in results]
    return [
        Elements.make(np.zeros((), numpy_type(r.type)), np.zeros(tuple(shape), bool), bits)
        for r, shape in zip(results, shapes, strict=True)
    ]


def constant(value: ir.Attribute, type_: ir.Type) -> Elements:
    """A constant scalar or tensor."""
    dtype = numpy_type(type_)
    if not isinstance(type_, ir.RankedTensorType):
        return Elements.of(np.asarray(_number(value), dtype))
    if isinstance(value, ir.DenseElementsAttr) and value.is_splat:
        return Elements.of(np.broadcast_to(np.asarray(_number(value.get_splat_value()), dtype), tuple(type_.shape)))
    # The bindings do not read numbers of other types.
    if not isinstance(value, ir.DenseFPElementsAttr | ir.DenseIntElementsAttr) or _is_half(type_.element_type):
        return Elements.unknown(type_.shape, dtype)
    return Elements.of(np.asarray(list(value), dtype).reshape(type_.shape))


def _is_half(element: ir.Type) -> bool:
    return isinstance(element, ir.FloatType) and not isinstance(element, ir.F32Type | ir.F64Type)


def _number(value: ir.Attribute) -> float:
    if isinstance(value, ir.BoolAttr | ir.IntegerAttr | ir.FloatAttr):
        return value.value
    raise TypeError(f"no number: {value}")
