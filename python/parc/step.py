"""A training step: the two programs that compute the results and values to save, and the gradients from those."""

from collections.abc import Sequence

import torch
from torch import Tensor

from parc.compiler import Program
from parc.iteration_state import IterationState
from parc.memory import Need
from parc.memory_report import StepMemory, step_memory
from parc.parameters import Snapshot
from parc.signature import TensorType

Arguments = tuple[int, ...]
"""Numbers of arguments of a program: its inputs, and then its parameters."""


class Step:
    """The two programs of a training step.

    `wanted` are the arguments that get a gradient, and `kept` those that the backward program takes.
    """

    def __init__(self, forward: Program, backward: Program, results: int, wanted: Arguments) -> None:
        self.forward, self.backward, self.wanted = forward, backward, wanted
        self._results = results
        ours, theirs = forward.run.signature, backward.run.signature
        self.floating = [i for i, t in enumerate(ours.results[:results]) if t.dtype.is_floating_point]
        self._inputs = len(ours.inputs)
        names = [t.name for t in ours.inputs]
        given = len(self.floating) + len(ours.results) - results
        inputs = [names.index(t.name) for t in theirs.inputs[given:]]
        names = [t.name for t in ours.parameters]
        self._kept_inputs = len(inputs)
        self.kept = (*inputs, *(self._inputs + names.index(t.name) for t in theirs.parameters))
        self._snapshot = Snapshot(())

    @property
    def tolerance(self) -> float:
        """The largest change in the last sweep of an iteration; 0 where there are none."""
        return max(program.run.signature.tolerance for program in (self.forward, self.backward))

    def share(self, iterations: IterationState) -> None:
        """Let both programs hand on there what iterations start from, and note how they go."""
        self.forward.run.share(iterations)
        self.backward.run.share(iterations)

    def renew(self) -> None:
        """Take the parameters as changed since the last backward pass: optimizers may write through `.data`."""
        self._snapshot = Snapshot(())

    def run_forward(
        self, symbols: tuple[int, ...], inputs: Sequence[Tensor], parameters: Snapshot
    ) -> tuple[list[Tensor], list[Tensor]]:
        """The results, and the values to save."""
        values = self.forward.run(symbols, inputs, parameters)
        return values[: self._results], values[self._results :]

    def run_backward(
        self,
        symbols: tuple[int, ...],
        cotangents: Sequence[Tensor | None],
        saved: Sequence[Tensor],
        kept: Sequence[Tensor],
    ) -> list[Tensor]:
        """The gradients of the `wanted` arguments.

        `cotangents` are those of the floating-point results, None for zeros; `kept` the values of the arguments `kept`.
        """
        types = self.backward.run.signature.inputs
        given = [_zeros(t, symbols) if c is None else c for c, t in zip(cotangents, types, strict=False)]
        parameters = kept[self._kept_inputs :]
        snapshot = self._snapshot
        if len(snapshot.tensors) != len(parameters) or not snapshot.shows(parameters):
            self._snapshot = snapshot = Snapshot(parameters)
        return self.backward.run(symbols, [*given, *saved, *kept[: self._kept_inputs]], snapshot)

    def differentiate(
        self, inputs: Sequence[Tensor], parameters: Snapshot, cotangents: Sequence[Tensor]
    ) -> list[Tensor]:
        """The gradients of the `wanted` arguments, at these inputs and parameters."""
        symbols = self.forward.run.sizes(inputs)
        saved = self.run_forward(symbols, inputs, parameters)[1]
        arguments = (*inputs, *parameters.tensors)
        return self.run_backward(symbols, cotangents, saved, [arguments[i] for i in self.kept])

    def need(self, symbols: tuple[int, ...]) -> Need:
        """The memory that the step takes at these sizes; both programs work in one arena."""
        saved = self.forward.run.signature.results[self._results :]
        programs = (self.forward.run, self.backward.run)
        return Need(sum(t.bytes(symbols) for t in saved), max(p.arena_bytes(symbols) for p in programs))

    def report(self, symbols: tuple[int, ...], why: str) -> StepMemory:
        """What the step saves and computes again; `why` it was chosen."""
        modules = self.forward.scheduled, self.backward.scheduled
        return step_memory(self.forward.run, self.backward.run, modules, symbols, why)


def _zeros(type_: TensorType, symbols: tuple[int, ...]) -> Tensor:
    return torch.zeros(type_.sizes(symbols), dtype=type_.dtype)
