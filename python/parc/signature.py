"""What a compiled `@main` takes and gives: sizes, shapes, element types; and the check of a call against it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from parc.errors import CallError
from parc.expression import Expression

CPU = torch.device("cpu")

Sizes = Sequence[int]


@dataclass(frozen=True)
class Extent:
    """A dimension's size as a function of the symbols.

    Where it grows linearly with one symbol it is `scale * symbols[symbol] + offset`; otherwise `scale` is 0.
    """

    text: str
    size: Expression
    symbol: int = -1
    scale: int = 0
    offset: int = 0

    def at(self, symbols: Sizes) -> int:
        """The size for these values of the symbols."""
        return self.size.at(symbols)


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
class Iterated:
    """What a program says of one of its iterations, besides how it went in a call."""

    name: str
    solver: str = ""
    tolerance: float | None = None
    """Both are missing where the program does not say."""


@dataclass(frozen=True)
class Signature:
    """`least` holds, per symbol, the smallest value that the program runs at.

    A program takes inputs, starts and parameters, and gives results, solutions and, for each iteration, the number of
    its sweeps (int64) and its last change (float64), in this order.  Callers see inputs, parameters and results.
    """

    symbols: tuple[str, ...]
    least: tuple[int, ...]
    inputs: tuple[TensorType, ...]
    parameters: tuple[TensorType, ...]
    results: tuple[TensorType, ...]
    starts: tuple[TensorType, ...] = ()
    """What iterations start from."""
    solutions: tuple[TensorType, ...] = ()
    """What they ended with, under the names of the starts."""
    iterations: tuple[Iterated, ...] = ()

    @property
    def tolerance(self) -> float:
        """The largest change in the last sweep of an iteration; 0 where there are none."""
        return max((i.tolerance or 0.0 for i in self.iterations), default=0.0)

    def outputs(self, symbols: Sizes) -> list[tuple[torch.dtype, tuple[int, ...]]]:
        """The element types and shapes of all that a call gives."""
        tensors = [(t.dtype, t.sizes(symbols)) for t in (*self.results, *self.solutions)]
        return tensors + [(torch.int64, ()), (torch.float64, ())] * len(self.iterations)

    def bytes(self, symbols: Sizes) -> tuple[int, int, int]:
        """The sizes in memory of all that goes in besides parameters, of all that comes out, and of the parameters."""
        groups = [[*self.inputs, *self.starts], [*self.results, *self.solutions], self.parameters]
        taken, given, parameters = (sum(t.bytes(symbols) for t in group) for group in groups)
        return taken, given, parameters

    def solve(self, inputs: Sequence[Tensor], device: torch.device = CPU) -> tuple[int, ...]:
        """The symbols' values for these inputs, which are on `device`.

        `CallError` names the input and dimension that does not fit.
        """
        if len(inputs) != len(self.inputs):
            raise CallError(f"{len(inputs)} input tensors given; the program takes {len(self.inputs)}")
        values: dict[int, int] = {}
        origin: dict[int, str] = {}
        for type_, tensor in zip(self.inputs, inputs, strict=True):
            check_tensor("input", type_, tensor, device)
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


def check_tensor(role: str, type_: TensorType, tensor: Tensor, device: torch.device = CPU) -> None:
    """Check all of a tensor but its sizes; `CallError` names it as `role` and says what was expected."""
    if tensor.dtype is not type_.dtype:
        raise CallError(f"{role} '{type_.name}' has elements of type {short_name(tensor.dtype)}; expected {type_}")
    if tensor.device != device or tensor.layout is not torch.strided:
        expected = "a dense CPU tensor" if device == CPU else f"a dense tensor on {device}"
        raise CallError(f"{role} '{type_.name}' is a {tensor.layout} tensor on {tensor.device}; expected {expected}")
    if tensor.dim() != len(type_.shape):
        raise CallError(f"{role} '{type_.name}' has shape {list(tensor.shape)}; expected {type_}")


def short_name(dtype: torch.dtype) -> str:
    """`float32` for `torch.float32`."""
    return str(dtype).removeprefix("torch.")


def _place(type_: TensorType, dimension: int) -> str:
    return f"dimension {dimension} of input '{type_.name}: {type_}'"
