"""What an importer returns: the traced program, and everything about it that the IR does not say."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor, nn
from torch_mlir import ir

from parc.call_structure import Structure


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
