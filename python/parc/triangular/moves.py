"""Operations that only move elements (`tensor`) on `Elements`."""

from collections.abc import Callable, Mapping

import numpy as np
from torch_mlir import ir

from parc.codegen.irtools import terminator
from parc.triangular.elements import Elements, Index, assemble
from parc.triangular.scalars import numpy_type
from parc.triangular.structured import Lookup, extracted


def moved_result(op: ir.Operation, lookup: Lookup) -> Elements | None:
    """What is known of the result of an operation with static offsets and sizes; None where it is none of these."""
    rule = _RULES.get(op.name)
    return rule(op, lookup) if rule is not None else None


def _window(op: ir.Operation) -> tuple[slice, ...] | None:
    """The part of a tensor that a slice stands for; None where it is not known while compiling."""
    offsets, sizes, strides = (
        list(ir.DenseI64ArrayAttr(op.attributes[f"static_{key}"])) for key in ("offsets", "sizes", "strides")
    )
    if min((*offsets, *sizes, *strides), default=0) < 0:
        return None
    return tuple(slice(o, o + n * s, s) for o, n, s in zip(offsets, sizes, strides, strict=True))


def _extract_slice(op: ir.Operation, lookup: Lookup) -> Elements | None:
    window = _window(op)
    return None if window is None else lookup(op.operands[0]).taken(window).reshaped(op.results[0].type.shape)


def _insert_slice(op: ir.Operation, lookup: Lookup) -> Elements | None:
    window = _window(op)
    if window is None:
        return None
    source, target = lookup(op.operands[0]), lookup(op.operands[1])
    sizes = list(ir.DenseI64ArrayAttr(op.attributes["static_sizes"]))
    whole = tuple(slice(None) for _ in target.shape)
    return assemble(target.shape, target.values.dtype, [(whole, target), (window, source.reshaped(sizes))])


def _concat(op: ir.Operation, lookup: Lookup) -> Elements:
    dim, start, parts = ir.IntegerAttr(op.attributes["dim"]).value, 0, []
    for operand in op.operands:
        part = lookup(operand)
        stop = start + part.shape[dim]
        parts.append((tuple(slice(start, stop) if d == dim else slice(None) for d in range(len(part.shape))), part))
        start = stop
    return assemble(op.results[0].type.shape, parts[0][1].values.dtype, parts)


def _pad(op: ir.Operation, lookup: Lookup) -> Elements | None:
    low = list(ir.DenseI64ArrayAttr(op.attributes["static_low"]))
    source, shape = lookup(op.operands[0]), op.results[0].type.shape
    block = op.regions[0].blocks[0]
    filling = terminator(block).operands[0]
    if min(low, default=0) < 0 or filling.owner in (block, terminator(block)) or isinstance(filling.owner, ir.Block):
        return None
    inside = tuple(slice(n, n + size) for n, size in zip(low, source.shape, strict=True))
    around = lookup(filling).broadcast(shape)
    return assemble(shape, source.values.dtype, [(tuple(slice(None) for _ in shape), around), (inside, source)])


def _from_elements(op: ir.Operation, lookup: Lookup) -> Elements:
    type_ = op.results[0].type
    parts: list[tuple[Index, Elements]] = [((n,), lookup(v)) for n, v in enumerate(op.operands)]
    return assemble([len(parts)], numpy_type(type_.element_type), parts).reshaped(type_.shape)


def _dim(op: ir.Operation, lookup: Lookup) -> Elements | None:
    number = lookup(op.operands[1])
    return Elements.of(np.asarray(lookup(op.operands[0]).shape[int(number.values)])) if number.known.all() else None


_RULES: Mapping[str, Callable[[ir.Operation, Lookup], Elements | None]] = {
    "tensor.cast": lambda op, lookup: lookup(op.operands[0]),
    "tensor.concat": _concat,
    "tensor.collapse_shape": lambda op, lookup: lookup(op.operands[0]).reshaped(op.results[0].type.shape),
    "tensor.dim": _dim,
    "tensor.empty": lambda op, lookup: Elements.unknown(op.results[0].type.shape, _element_type(op)),
    "tensor.expand_shape": lambda op, lookup: lookup(op.operands[0]).reshaped(op.results[0].type.shape),
    "tensor.extract": lambda op, lookup: extracted(lookup(op.operands[0]), [lookup(v) for v in list(op.operands)[1:]]),
    "tensor.extract_slice": _extract_slice,
    "tensor.from_elements": _from_elements,
    "tensor.insert_slice": _insert_slice,
    "tensor.pad": _pad,
    "tensor.splat": lambda op, lookup: lookup(op.operands[0]).broadcast(op.results[0].type.shape),
}


def _element_type(op: ir.Operation) -> np.dtype:
    return numpy_type(op.results[0].type.element_type)
