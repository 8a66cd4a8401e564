"""Training in little memory: a step that keeps only the states between chunks of the sequence.

The forward pass goes through the chunks and keeps the states that each starts from.  The backward pass goes through
them from the last to the first, and runs each forward once more, now with all that its own backward pass needs.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from parc.chunks.program import Chunked, make_chunk
from parc.compiler import Compiler
from parc.memory import Need
from parc.parameters import Snapshot
from parc.sensitivity import Sources
from parc.training import Arguments, Step


@dataclass(frozen=True)
class _Part:
    """One chunk of a call: `count` steps from `first` on."""

    step: Step
    first: int
    count: int
    symbols: tuple[int, ...]
    is_last: bool


def chunked_step(compiler: Compiler, wanted: Arguments) -> "ChunkedStep":
    """Compile the programs of a step in chunks; CompileError, with the reason, where the program has no chunks."""
    begins, form = _program(compiler, wanted, continues=False)
    continues, _ = _program(compiler, wanted, continues=True)
    return ChunkedStep(begins, continues, form, wanted)


def _program(compiler: Compiler, wanted: Arguments, *, continues: bool) -> tuple[Step, Chunked]:
    """The training step of one chunk, by the wanted arguments and the states that it starts from."""
    module = compiler.copy()
    form = make_chunk(module, continues=continues)
    derived = compiler.derive(module)
    reachable: Sources = frozenset().union(*derived.sensitivities())
    inputs, more = len(form.inputs), form.states if continues else 0
    own = [i if i < inputs else i + more for i in wanted] + [inputs + i for i in range(more)]
    kept = tuple(sorted(i for i in own if i in reachable))
    return Step(*derived.training(kept), len(form.results) + form.states, kept), form


class ChunkedStep:
    """A training step as a sequence of smaller ones; `begins` is the program of the first chunk, `continues` of others.

    It is used as a `Step` is; `wanted` are arguments of the whole program.  A chunk has as many steps as the `limit`
    allows, what a step may take in bytes; where that is None, it has `length`.
    """

    def __init__(self, begins: Step, continues: Step, form: Chunked, wanted: Arguments) -> None:
        self._begins, self._continues, self._form = begins, continues, form
        self.limit: int | None = None
        self.length = 2
        self.wanted = wanted
        signature = begins.forward.run.signature
        self.forward, self.backward = begins.forward, begins.backward
        self._inputs = len(signature.inputs)
        self._results = len(form.results)
        self.floating = [i for i in begins.floating if i < self._results]
        self.kept = tuple(range(self._inputs + len(signature.parameters)))
        self._snapshot = Snapshot(())

    def renew(self) -> None:
        """Take the parameters as changed since the last backward pass: optimizers may write through `.data`."""
        self._snapshot = Snapshot(())
        self._begins.renew()
        self._continues.renew()

    def steps(self, symbols: tuple[int, ...]) -> int:
        """How many steps a chunk has in a call of these sizes: as many as the limit allows, else what takes least."""
        if self.limit is None:
            return self.length
        total = max(symbols[self._form.symbol], 1)
        choices = [1 << k for k in range(total.bit_length())]
        needs = {n: self._need(symbols, n).total for n in choices}
        fitting = [n for n in choices if needs[n] <= self.limit]
        return max(fitting) if fitting else min(choices, key=needs.__getitem__)

    def need(self, symbols: tuple[int, ...]) -> Need:
        """The memory that the step takes at these sizes."""
        return self._need(symbols, self.steps(symbols))

    def run_forward(
        self, symbols: tuple[int, ...], inputs: Sequence[Tensor], parameters: Snapshot
    ) -> tuple[list[Tensor], list[Tensor]]:
        """The results, and the states that the chunks but the first start from."""
        types = self._begins.forward.run.signature.results[: self._results]
        results = [torch.empty(t.sizes(symbols), dtype=t.dtype) for t in types]
        states: list[Tensor] = []
        saved: list[Tensor] = []
        for part in self._parts(symbols):
            saved += states
            values, _ = part.step.run_forward(part.symbols, self._part_of(inputs, states, part), parameters)
            for i, axis in enumerate(self._form.results):
                if axis is not None:
                    results[i].narrow(axis, part.first, part.count).copy_(values[i])
                elif part.is_last:
                    results[i] = values[i]
            states = values[self._results :]
        return results, saved

    def run_backward(
        self,
        symbols: tuple[int, ...],
        cotangents: Sequence[Tensor | None],
        saved: Sequence[Tensor],
        kept: Sequence[Tensor],
    ) -> list[Tensor]:
        """The gradients of the `wanted` arguments; arguments as in `Step.run_backward`."""
        inputs, snapshot = kept[: self._inputs], self._parameters(kept[self._inputs :])
        given = dict(zip(self.floating, cotangents, strict=True))
        gradients = [torch.zeros_like(kept[i]) for i in self.wanted]
        after: list[Tensor | None] = [None] * self._form.states
        parts = list(self._parts(symbols))
        for number, part in reversed(list(enumerate(parts))):
            states = saved[(number - 1) * self._form.states : number * self._form.states] if number else ()
            chunk = self._part_of(inputs, states, part)
            _, values = part.step.run_forward(part.symbols, chunk, snapshot)
            local = [self._cotangent(given, i, part) for i in range(self._results)] + after
            arguments = (*chunk, *snapshot.tensors)
            found = part.step.run_backward(
                part.symbols,
                [local[i] for i in part.step.floating],
                values,
                [arguments[i] for i in part.step.kept],
            )
            by_argument = dict(zip(part.step.wanted, found, strict=True))
            after = [by_argument.get(self._inputs + i) for i in range(self._form.states)] if number else []
            self._add(gradients, by_argument, part, shift=self._form.states if number else 0)
        return gradients

    def differentiate(
        self, inputs: Sequence[Tensor], parameters: Snapshot, cotangents: Sequence[Tensor]
    ) -> list[Tensor]:
        """The gradients of the `wanted` arguments, at these inputs and parameters."""
        symbols = self._begins.forward.run.sizes(inputs)
        saved = self.run_forward(symbols, inputs, parameters)[1]
        return self.run_backward(symbols, cotangents, saved, (*inputs, *parameters.tensors))

    def _need(self, symbols: tuple[int, ...], steps: int) -> Need:
        total = symbols[self._form.symbol]
        chunk = self._at(symbols, min(steps, total))
        states = self._begins.forward.run.signature.results[self._results : self._results + self._form.states]
        kept = max(-(-total // steps) - 1, 0) * sum(t.bytes(symbols) for t in states)
        needs = [step.need(chunk) for step in (self._begins, self._continues)]
        # The results of one chunk, and its gradients, before they are put in their places.
        results = self._begins.forward.run.signature.results[: self._results + self._form.states]
        gradients = self._begins.backward.run.signature.results
        own = sum(t.bytes(chunk) for t in (*results, *gradients))
        return Need(kept + max(n.saved for n in needs), max(n.working for n in needs) + own)

    def _at(self, symbols: tuple[int, ...], steps: int) -> tuple[int, ...]:
        """The sizes of a chunk."""
        position = self._form.symbol
        return (*symbols[:position], steps, *symbols[position + 1 :])

    def _parts(self, symbols: tuple[int, ...]) -> Iterator[_Part]:
        total, steps = symbols[self._form.symbol], self.steps(symbols)
        for first in range(0, max(total, 1), steps):
            count = min(steps, total - first)
            step = self._continues if first else self._begins
            yield _Part(step, first, count, self._at(symbols, count), first + steps >= total)

    def _part_of(self, inputs: Sequence[Tensor], states: Sequence[Tensor], part: _Part) -> list[Tensor]:
        return [*(_part_of(t, axis, part) for t, axis in zip(inputs, self._form.inputs, strict=True)), *states]

    def _cotangent(self, given: dict[int, Tensor | None], result: int, part: _Part) -> Tensor | None:
        """The cotangent of a chunk's result; results that are not along time are those of the last chunk."""
        cotangent, axis = given.get(result), self._form.results[result]
        if cotangent is None or (axis is None and not part.is_last):
            return None
        return _part_of(cotangent, axis, part)

    def _parameters(self, tensors: Sequence[Tensor]) -> Snapshot:
        if len(self._snapshot.tensors) != len(tensors) or not self._snapshot.shows(tensors):
            self._snapshot = Snapshot(tuple(tensors))
        return self._snapshot

    def _add(self, gradients: list[Tensor], found: dict[int, Tensor], part: _Part, shift: int) -> None:
        """Add a chunk's gradients; its parameters' numbers come `shift` later than those of the whole program."""
        for gradient, argument in zip(gradients, self.wanted, strict=True):
            if argument >= self._inputs:
                own = found.get(argument + shift)
                if own is not None:
                    gradient += own
            elif (own := found.get(argument)) is not None:
                axis = self._form.inputs[argument]
                target = _part_of(gradient, axis, part)
                target += own


def _part_of(tensor: Tensor, axis: int | None, part: _Part) -> Tensor:
    """A chunk of a tensor along an axis; all of it without one."""
    return tensor if axis is None else tensor.narrow(axis, part.first, part.count)
