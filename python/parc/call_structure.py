"""How a user's call becomes a program's flat list of inputs, and its results become what the user gets."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from parc.errors import CallError
from parc.template import Template


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
class CallStructure:
    """The structure of a torch program's calls: its signature, nested arguments and nested result."""

    signature: inspect.Signature | None
    names: tuple[str, ...]
    defaults: tuple[object, ...]
    """Of the last positional arguments."""
    arguments: tuple[tuple[Template, ...], Mapping[str, Template]]
    results: Template

    def flatten(self, args: Sequence[object], kwargs: Mapping[str, object]) -> list[Tensor]:
        positional, named = self.arguments
        missing = len(positional) - len(args)
        if not kwargs and 0 < missing <= len(self.defaults):
            args = (*args, *self.defaults[-missing:])
        if kwargs or named or len(args) != len(positional):
            try:
                args, kwargs = bind(self.signature, args, kwargs)
            except TypeError as e:
                raise CallError(str(e)) from None
        if len(args) != len(positional):
            raise CallError(f"{len(args)} arguments given; the program was compiled for {len(positional)}")
        if kwargs.keys() != named.keys():
            raise CallError(f"arguments {sorted(kwargs)} given by name; the program was compiled for {sorted(named)}")
        tensors: list[Tensor] = []
        for name, template, value in zip(self.names, positional, args, strict=True):
            template.take(value, name, tensors)
        for name, template in named.items():
            template.take(kwargs[name], name, tensors)
        return tensors

    def pack(self, results: Sequence[Tensor]) -> object:
        return self.results.fill(iter(results))


def bind(
    signature: inspect.Signature | None, args: Sequence[object], kwargs: Mapping[str, object]
) -> tuple[tuple[object, ...], dict[str, object]]:
    """A call in its one form: defaults filled in, by position what can be; TypeError when it does not fit."""
    if signature is None:
        return tuple(args), dict(kwargs)
    bound = signature.bind(*args, **kwargs)
    bound.apply_defaults()
    return bound.args, bound.kwargs
