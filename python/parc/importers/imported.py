"""What an importer returns: the traced program, and everything about it that the IR does not say."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor, nn
from torch_mlir import ir

from parc.errors import CallError


class Structure(Protocol):
    """How a user's call becomes the program's inputs, and its results become what the user gets."""

    def flatten(self, args: Sequence[object], kwargs: Mapping[str, object]) -> list[Tensor]:
        """The tensor inputs of a call, in the program's order; `CallError` when the call does not fit."""
        ...

    def pack(self, results: Sequence[Tensor]) -> object:
        """The program's results in the structure that the original returns."""
        ...


@dataclass(frozen=True)
class NamedTensors:
    """The structure of a model file: inputs by position or name; one result alone, several as a tuple."""

    inputs: tuple[str, ...]

    def flatten(self, args: Sequence[object], kwargs: Mapping[str, object]) -> list[Tensor]:
        if len(args) > len(self.inputs):
            raise CallError(f"{len(args)} inputs given; the program takes {len(self.inputs)}: {', '.join(self.inputs)}")
        given = dict(zip(self.inputs, args, strict=False))
        for name, value in kwargs.items():
            if name in given:
                raise CallError(f"input '{name}' is given twice")
            given[name] = value
        if unknown := [name for name in given if name not in self.inputs]:
            raise CallError(f"there is no input '{unknown[0]}'; inputs: {', '.join(self.inputs)}")
        if missing := [name for name in self.inputs if name not in given]:
            raise CallError(f"input '{missing[0]}' is missing; inputs: {', '.join(self.inputs)}")
        tensors = []
        for name in self.inputs:
            value = given[name]
            if not isinstance(value, Tensor):
                raise CallError(f"input '{name}' is a tensor; got {type(value).__name__}")
            tensors.append(value)
        return tensors

    def pack(self, results: Sequence[Tensor]) -> object:
        return results[0] if len(results) == 1 else tuple(results)


@dataclass(frozen=True)
class Original:
    """The original program, to compare the compiled one with."""

    run: Callable[[Sequence[Tensor]], Sequence[Tensor]]
    """Inputs -> results, both flat; raises what it wants for sizes that it does not take."""
    inputs: Callable[[Mapping[str, int]], list[Tensor]]
    """Random inputs for these values of the symbols."""
    sizes: tuple[Mapping[str, int], ...]
    """Values of the symbols at which to compare, none of them traced."""


@dataclass(frozen=True)
class Imported:
    """A program in the form of docs/architecture.md, "Traces", with its calling convention.

    `parameters` are the live tensors behind the module's arguments of kind "parameter", by their
    `parc.name` and in their order; `owner` is the module that they belong to, if any: a tensor that
    replaces one of them there is used at the next call.
    """

    module: ir.Module
    structure: Structure
    parameters: Mapping[str, Tensor]
    owner: nn.Module | None = None
    least: Mapping[str, int] = field(default_factory=dict)
    """Symbol -> its least value, where the program does not run at 0."""
    sizes: Mapping[str, int] = field(default_factory=dict)
    """Symbol -> its value in the example call: the schedule is chosen for these, and right for all."""
    original: Original | None = None
    unsigned: frozenset[str] = frozenset()
    """Names of the inputs and results whose elements are unsigned integers: the IR's integers have no sign."""
    mode_matters: bool = False
    """Whether `owner` computes something else when its training mode is switched."""
