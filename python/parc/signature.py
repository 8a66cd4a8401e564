"""What a compiled `@main` takes and gives: sizes, shapes, element types; and the check of a call against it.

All of it is read off the function's own attributes (docs/architecture.md, "`@main`").
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch_mlir import ir
from torch_mlir.dialects import func

from parc.errors import CallError, CompileError

Sizes = Sequence[int]


@dataclass(frozen=True)
class Extent:
    """A dimension's size as a function of the symbols.

    Where it grows linearly with one symbol it is `scale * symbols[symbol] + offset`; otherwise `scale` is 0.
    """

    text: str
    at: Callable[[Sizes], int]
    symbol: int = -1
    scale: int = 0
    offset: int = 0


@dataclass(frozen=True)
class TensorType:
    """The name, element type and shape of an input, parameter or result."""

    name: str
    dtype: torch.dtype
    shape: tuple[Extent, ...]

    def sizes(self, symbols: Sizes) -> tuple[int, ...]:
        """The shape for these values of the symbols."""
        return tuple(extent.at(symbols) for extent in self.shape)

    def bytes(self, symbols: Sizes) -> int:
        """The size in memory for these values of the symbols."""
        return math.prod(self.sizes(symbols)) * self.dtype.itemsize

    def __str__(self) -> str:
        return f"{short_name(self.dtype)}[{', '.join(e.text for e in self.shape)}]"


@dataclass(frozen=True)
class Signature:
    """`least` holds, per symbol, the smallest value that the program runs at."""

    symbols: tuple[str, ...]
    least: tuple[int, ...]
    inputs: tuple[TensorType, ...]
    parameters: tuple[TensorType, ...]
    results: tuple[TensorType, ...]

    @staticmethod
    def of(
        main: func.FuncOp, least: Mapping[str, int], unsigned: frozenset[str], *, sizes_given: bool = False
    ) -> "Signature":
        """Read the signature of `@main`, all of whose shapes are known (`name-sizes`).

        `unsigned` names the inputs and results whose integers are unsigned.  CompileError for a symbol that does not
        follow from the inputs, unless calls are given the sizes.
        """
        attributes = [ir.DictAttr(a) for a in main.arg_attrs]
        kinds = [_string(a, "parc.kind", "input") for a in attributes]
        arguments = list(zip(main.type.inputs, attributes, kinds, strict=True))
        symbols = tuple(_string(a, "parc.name", "") for _, a, kind in arguments if kind == "symbol")

        def tensors(pairs: Sequence[tuple[ir.Type, ir.DictAttr]], default: str) -> tuple[TensorType, ...]:
            return tuple(_tensor(t, a, symbols, f"{default}{i}", unsigned) for i, (t, a) in enumerate(pairs))

        outputs = main.type.results
        named = main.attributes["res_attrs"] if "res_attrs" in main.attributes else [{}] * len(outputs)
        signature = Signature(
            symbols,
            tuple(least.get(name, 0) for name in symbols),
            tensors([(t, a) for t, a, kind in arguments if kind == "input"], "input"),
            tensors([(t, a) for t, a, kind in arguments if kind == "parameter"], "parameter"),
            tensors(
                [(t, ir.DictAttr(a) if a else ir.DictAttr.get({})) for t, a in zip(outputs, named, strict=True)],
                "result",
            ),
        )
        known = {extent.symbol for type_ in signature.inputs for extent in type_.shape if extent.scale}
        for i, name in enumerate(symbols):
            if i not in known and not sizes_given:
                raise CompileError(f"the size {name} does not follow from the shape of any input", main.location)
        return signature

    def solve(self, inputs: Sequence[Tensor]) -> tuple[int, ...]:
        """The symbols' values for these inputs; `CallError` names the input and dimension that does not fit."""
        if len(inputs) != len(self.inputs):
            raise CallError(f"{len(inputs)} input tensors given; the program takes {len(self.inputs)}")
        values: dict[int, int] = {}
        origin: dict[int, str] = {}
        for type_, tensor in zip(self.inputs, inputs, strict=True):
            check_tensor("input", type_, tensor)
            for d, (extent, size) in enumerate(zip(type_.shape, tensor.shape, strict=True)):
                if not extent.scale or extent.symbol in values:
                    continue
                value, rest = divmod(size - extent.offset, extent.scale)
                if rest or value < 0:
                    raise CallError(f"{_place(type_, d)} has size {size}; expected {extent.text}")
                values[extent.symbol] = value
                origin[extent.symbol] = _place(type_, d)
        sizes = tuple(values[i] for i in range(len(self.symbols)))
        for i, (name, least) in enumerate(zip(self.symbols, self.least, strict=True)):
            if sizes[i] < least:
                raise CallError(f"{origin[i]}: {name} is {sizes[i]}; the program runs from {name} = {least} on")
        for type_, tensor in zip(self.inputs, inputs, strict=True):
            for d, (extent, size) in enumerate(zip(type_.shape, tensor.shape, strict=True)):
                expected = extent.at(sizes)
                if expected != size:
                    why = f" ({extent.text}, from {origin[extent.symbol]})" if extent.scale else ""
                    raise CallError(f"{_place(type_, d)} has size {size}; expected {expected}{why}")
        return sizes


def check_tensor(role: str, type_: TensorType, tensor: Tensor) -> None:
    """Check all of a tensor but its sizes; `CallError` names it as `role` and says what was expected."""
    if tensor.dtype is not type_.dtype:
        raise CallError(f"{role} '{type_.name}' has elements of type {short_name(tensor.dtype)}; expected {type_}")
    if tensor.device.type != "cpu" or tensor.layout is not torch.strided:
        raise CallError(
            f"{role} '{type_.name}' is a {tensor.layout} tensor on {tensor.device}; expected a dense CPU tensor"
        )
    if tensor.dim() != len(type_.shape):
        raise CallError(f"{role} '{type_.name}' has shape {list(tensor.shape)}; expected {type_}")


def short_name(dtype: torch.dtype) -> str:
    """`float32` for `torch.float32`."""
    return str(dtype).removeprefix("torch.")


def _place(type_: TensorType, dimension: int) -> str:
    return f"dimension {dimension} of input '{type_.name}: {type_}'"


def _tensor(
    type_: ir.Type, attributes: ir.DictAttr, symbols: tuple[str, ...], default: str, unsigned: frozenset[str]
) -> TensorType:
    name = _string(attributes, "parc.name", default)
    if not isinstance(type_, ir.RankedTensorType):
        raise CompileError(f"'{name}' is of type {type_}; programs take and return tensors")
    if "parc.shape" in attributes:
        shape = [_extent(e, symbols) for e in ir.AffineMapAttr(attributes["parc.shape"]).value.results]
    else:
        shape = [_constant(n) for n in type_.shape]
    return TensorType(name, _dtype(name, type_.element_type, name in unsigned), tuple(shape))


def _string(attributes: ir.DictAttr, key: str, default: str) -> str:
    return ir.StringAttr(attributes[key]).value if key in attributes else default


def _constant(value: int) -> Extent:
    return Extent(str(value), lambda _: value, offset=value)


def _extent(expr: ir.AffineExpr, symbols: tuple[str, ...]) -> Extent:
    expr = expr.maybe_downcast()
    if isinstance(expr, ir.AffineConstantExpr):
        return _constant(expr.value)
    if isinstance(expr, ir.AffineSymbolExpr):
        which = expr.position
        return Extent(symbols[which], lambda sizes: sizes[which], which, 1)
    left, right = _extent(expr.lhs, symbols), _extent(expr.rhs, symbols)
    a, b = left.at, right.at
    # MLIR writes constants on the right.
    other = expr.rhs.maybe_downcast()
    constant = other.value if isinstance(other, ir.AffineConstantExpr) else None
    linear = constant is not None and left.scale > 0
    if isinstance(expr, ir.AffineAddExpr):
        text = f"{left.text} - {-constant}" if constant is not None and constant < 0 else f"{left.text} + {right.text}"
        if linear:
            return Extent(text, lambda sizes: a(sizes) + b(sizes), left.symbol, left.scale, left.offset + right.offset)
        return Extent(text, lambda sizes: a(sizes) + b(sizes))
    if isinstance(expr, ir.AffineMulExpr):
        text = f"{_grouped(right)}*{_grouped(left)}"
        if linear and right.offset > 0:
            scale, offset = left.scale * right.offset, left.offset * right.offset
            return Extent(text, lambda sizes: a(sizes) * b(sizes), left.symbol, scale, offset)
        return Extent(text, lambda sizes: a(sizes) * b(sizes))
    if isinstance(expr, ir.AffineFloorDivExpr):
        return Extent(f"{_grouped(left)} // {_grouped(right)}", lambda sizes: a(sizes) // b(sizes))
    if isinstance(expr, ir.AffineCeilDivExpr):
        return Extent(f"ceil({left.text} / {_grouped(right)})", lambda sizes: -(-a(sizes) // b(sizes)))
    return Extent(f"{_grouped(left)} % {_grouped(right)}", lambda sizes: a(sizes) % b(sizes))


def _grouped(extent: Extent) -> str:
    return extent.text if extent.text.isidentifier() or extent.text.isdigit() else f"({extent.text})"


def _dtype(name: str, type_: ir.Type, unsigned: bool) -> torch.dtype:
    """The torch type of an element type."""
    names = {"f64": "float64", "f32": "float32", "f16": "float16", "bf16": "bfloat16", "i1": "bool", "index": "int64"}
    names |= {f"i{n}": f"uint{n}" if unsigned else f"int{n}" for n in (8, 16, 32, 64)}
    names |= {"complex<f32>": "complex64", "complex<f64>": "complex128"}
    if str(type_) not in names:
        raise CompileError(f"'{name}' has elements of type {type_}, which torch has no type for")
    dtype: torch.dtype = getattr(torch, names[str(type_)])
    return dtype
