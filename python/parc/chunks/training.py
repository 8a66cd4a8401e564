"""Training in little memory: a step that keeps only the states between chunks of the sequence.

The forward pass goes through the chunks and keeps the states that each starts from.  The backward pass goes through
them from the last to the first, and runs each forward once more, now with all that its own backward pass needs.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from parc.chunks.program import Chunked, make_chunk
from parc.chunks.reverse import reverse_steps
from parc.chunks.systems import NoChunksError
from parc.codegen.irtools import copy_module
from parc.compiler import Compiler, Program
from parc.iteration_state import IterationState
from parc.memory import Need, bytes_text
from parc.memory_report import SavedArray, StepMemory
from parc.parameters import Snapshot
from parc.sensitivity import Sources
from parc.signature import TensorType
from parc.step import Arguments, Step

_LONG = 64
"""Chunks of so many steps are about as fast as longer ones; from there on, memory is better used to keep states."""


@dataclass(frozen=True)
class Pace:
    """Chunks of `steps`; the states that every `kept`-th starts from are kept, the others computed backwards."""

    steps: int
    kept: int = 1

    def count(self, total: int) -> int:
        """The number of chunks."""
        return max(-(-total // self.steps), 1)

    def text(self, total: int) -> str:
        """How a sequence of `total` steps goes, in words."""
        if self.kept == 1:
            return f"chunks of {self.steps} steps"
        which = f"one in {self.kept} kept, the others" if self.kept < self.count(total) else "all"
        return f"chunks of {self.steps} steps; of the states between them {which} computed backwards"


@dataclass(frozen=True)
class _Part:
    """One chunk of a call: `count` steps from `first` on; it is the `number`-th."""

    step: Step
    number: int
    first: int
    count: int
    symbols: tuple[int, ...]
    is_exact: bool
    """Whether the states that it starts from are known: given, or kept."""
    is_last: bool


def chunked_step(compiler: Compiler, wanted: Arguments) -> "tuple[ChunkedStep, str]":
    """Compile a step in chunks, and say why its states cannot be computed backwards, where they cannot be.

    NoChunksError, with the reason, where the program has no chunks.
    """
    begins = _Chunk(compiler, wanted, continues=False)
    continues = _Chunk(compiler, wanted, continues=True)
    reverse, reason = None, ""
    try:
        reverse = continues.reverse()
    except NoChunksError as e:
        reason = str(e)
    return ChunkedStep(begins.step, continues.step, begins.form, wanted, reverse), reason


class _Chunk:
    """The training step of one chunk, by the wanted arguments and the states that it starts from."""

    def __init__(self, compiler: Compiler, wanted: Arguments, *, continues: bool) -> None:
        module = compiler.copy()
        self.form = make_chunk(module, continues=continues)
        self._compiler = compiler.derive(module)
        reachable: Sources = frozenset().union(*self._compiler.sensitivities())
        inputs, more = len(self.form.inputs), self.form.states if continues else 0
        own = [i if i < inputs else i + more for i in wanted] + [inputs + i for i in range(more)]
        kept = tuple(sorted(i for i in own if i in reachable))
        forward, backward = self._compiler.adjoint(kept)
        self._forward = copy_module(forward)
        programs = self._compiler.program(forward), self._compiler.program(backward, sizes_given=True)
        self.step = Step(*programs, len(self.form.results) + self.form.states, kept)

    def reverse(self) -> Program:
        """The program that computes the first states, and what is saved, from the last states."""
        reverse_steps(self._forward)
        return self._compiler.program(self._forward)


class ChunkedStep:
    """A training step as a sequence of smaller ones; `begins` is the program of the first chunk, `continues` of others.

    It is used as a `Step` is; `wanted` are arguments of the whole program.  `reverse` is, where there is one, the
    program that computes a chunk's first states, and what it saves, from its last ones.  A chunk has as many steps as
    the `limit` allows, what a step may take in bytes; where that is None, it keeps the `pace`.
    """

    def __init__(
        self, begins: Step, continues: Step, form: Chunked, wanted: Arguments, reverse: Program | None = None
    ) -> None:
        self._begins, self._continues, self._form, self._reverse = begins, continues, form, reverse
        self.limit: int | None = None
        self.pace = Pace(2) if reverse is None else Pace(2, 4)
        self._paced: tuple[tuple[int, ...] | None, Pace] = None, self.pace
        self.wanted = wanted
        signature = begins.forward.run.signature
        self.forward, self.backward = begins.forward, begins.backward
        self._inputs = len(signature.inputs)
        self._results = len(form.results)
        self.floating = [i for i in begins.floating if i < self._results]
        self.kept = tuple(range(self._inputs + len(signature.parameters)))
        self._snapshot = Snapshot(())

    @property
    def tolerance(self) -> float:
        """The largest change in the last sweep of an iteration; 0 where there are none."""
        return max(self._begins.tolerance, self._continues.tolerance)

    def share(self, iterations: IterationState) -> None:
        """Let all programs hand on there what iterations start from, and note how they go."""
        self._begins.share(iterations)
        self._continues.share(iterations)
        if self._reverse is not None:
            self._reverse.run.share(iterations)

    def renew(self) -> None:
        """Take the parameters as changed since the last backward pass: optimizers may write through `.data`."""
        self._snapshot = Snapshot(())
        self._begins.renew()
        self._continues.renew()

    def pace_at(self, symbols: tuple[int, ...]) -> Pace:
        """The pace of a call of these sizes: the fastest that the limit allows, else the one that takes least."""
        if self.limit is None:
            return self.pace
        if symbols != self._paced[0]:
            self._paced = symbols, self._fastest(symbols, self.limit)
        return self._paced[1]

    def _fastest(self, symbols: tuple[int, ...], limit: int, *, exact: bool = False) -> Pace:
        """The fastest pace that a limit allows, else the one that takes least; `exact` ones keep all states."""
        total = max(symbols[self._form.symbol], 1)
        powers = [1 << k for k in range(total.bit_length())]
        strides = [1] if exact or self._reverse is None else powers
        paces = [Pace(n, k) for n in powers for k in strides if (k - 1) * n < total]
        needs = {pace: self._need(symbols, pace).total for pace in paces}
        fitting = [pace for pace in paces if needs[pace] <= limit]
        # States that are kept are exact.
        best = max(fitting, key=lambda p: (min(p.steps, _LONG), -p.kept, p.steps), default=None)
        return best or min(paces, key=needs.__getitem__)

    def need(self, symbols: tuple[int, ...]) -> Need:
        """The memory that the step takes at these sizes."""
        return self._need(symbols, self.pace_at(symbols))

    def why(self, symbols: tuple[int, ...]) -> str:
        """Why states are computed backwards, where some are; else nothing."""
        if self.limit is None or self.pace_at(symbols).kept == 1:
            return ""
        exact = self._fastest(symbols, self.limit, exact=True)
        need = self._need(symbols, exact)
        if need.total <= self.limit:
            return f"with all states kept, chunks would be of {exact.steps} steps"
        return f"with all states kept, it would take at least {bytes_text(need.total)}"

    def report(self, symbols: tuple[int, ...], why: str) -> StepMemory:
        """What the step saves and computes again; `why` it was chosen."""
        pace = self.pace_at(symbols)
        chunk = self._at(symbols, min(pace.steps, symbols[self._form.symbol]))
        own = max((self._begins, self._continues), key=lambda s: s.need(chunk).total).report(chunk, why)
        count, states = self._kept(symbols, pace), self._states
        kept = [SavedArray("between chunks", f"{count} x {t}", count * t.bytes(symbols)) for t in states]
        signature = self._begins.forward.run.signature
        arguments = (*signature.inputs, *signature.parameters)
        return replace(
            own,
            plan=pace.text(symbols[self._form.symbol]),
            saved=(*own.saved, *(kept if count else ())),
            recomputed={"the forward pass of each chunk": (), **own.recomputed},
            results=sum(t.bytes(symbols) for t in signature.results[: self._results]),
            gradients=sum(arguments[i].bytes(symbols) for i in self.wanted),
            need=self.need(symbols),
        )

    def run_forward(
        self, symbols: tuple[int, ...], inputs: Sequence[Tensor], parameters: Snapshot
    ) -> tuple[list[Tensor], list[Tensor]]:
        """The results, and the states that are kept."""
        types = self._begins.forward.run.signature.results[: self._results]
        results = [torch.empty(t.sizes(symbols), dtype=t.dtype) for t in types]
        kept = self.pace_at(symbols).kept
        states: list[Tensor] = []
        saved: list[Tensor] = []
        for part in self._parts(symbols):
            # What it saves is let go at once.
            values = part.step.run_forward(part.symbols, self._part_of(inputs, states, part), parameters)[0]
            for i, axis in enumerate(self._form.results):
                if axis is not None:
                    results[i].narrow(axis, part.first, part.count).copy_(values[i])
                elif part.is_last:
                    results[i] = values[i]
            states = values[self._results :]
            # Of the last chunk, the states after it where those before it are not kept.
            if not part.is_exact if part.is_last else (part.number + 1) % kept == 0:
                saved += states
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
        left = list(saved)
        states: Sequence[Tensor] = ()
        for part in reversed(list(self._parts(symbols))):
            states, chunk, values = self._run_again(part, inputs, states, left, snapshot)
            local = [self._cotangent(given, i, part) for i in range(self._results)] + after
            arguments = (*chunk, *snapshot.tensors)
            found = part.step.run_backward(
                part.symbols,
                [local[i] for i in part.step.floating],
                values,
                [arguments[i] for i in part.step.kept],
            )
            del values
            by_argument = dict(zip(part.step.wanted, found, strict=True))
            after = [by_argument.get(self._inputs + i) for i in range(self._form.states)] if part.number else []
            self._add(gradients, by_argument, part, shift=self._form.states if part.number else 0)
        return gradients

    def _run_again(
        self,
        part: _Part,
        inputs: Sequence[Tensor],
        states: Sequence[Tensor],
        left: list[Tensor],
        parameters: Snapshot,
    ) -> tuple[Sequence[Tensor], Sequence[Tensor], list[Tensor]]:
        """The states that a chunk starts from, its inputs with these, and what its backward pass needs.

        `states` are those after the chunk, none for the last one; `left` are those kept of this chunk and earlier ones.
        """
        if part.is_exact:
            states = _take(left, self._form.states) if part.number else []
            chunk = self._part_of(inputs, states, part)
            return states, chunk, part.step.run_forward(part.symbols, chunk, parameters)[1]
        assert self._reverse is not None
        states = states or _take(left, self._form.states)
        values = self._reverse.run(part.symbols, self._part_of(inputs, states, part), parameters)
        states, values = values[: self._form.states], values[self._form.states :]
        return states, self._part_of(inputs, states, part), values

    def differentiate(
        self, inputs: Sequence[Tensor], parameters: Snapshot, cotangents: Sequence[Tensor]
    ) -> list[Tensor]:
        """The gradients of the `wanted` arguments, at these inputs and parameters."""
        symbols = self._begins.forward.run.sizes(inputs)
        saved = self.run_forward(symbols, inputs, parameters)[1]
        return self.run_backward(symbols, cotangents, saved, (*inputs, *parameters.tensors))

    def _need(self, symbols: tuple[int, ...], pace: Pace) -> Need:
        chunk = self._at(symbols, min(pace.steps, symbols[self._form.symbol]))
        kept = self._kept(symbols, pace) * sum(t.bytes(symbols) for t in self._states)
        needs = [step.need(chunk) for step in (self._begins, self._continues)]
        working = [n.working for n in needs]
        if self._reverse is not None and pace.kept > 1:
            working.append(self._reverse.run.arena_bytes(chunk))
        # The results of one chunk, and its gradients, before they are put in their places.
        results = self._begins.forward.run.signature.results[: self._results + self._form.states]
        gradients = self._begins.backward.run.signature.results
        own = sum(t.bytes(chunk) for t in (*results, *gradients))
        return Need(kept + max(n.saved for n in needs), max(working) + own)

    @property
    def _states(self) -> tuple[TensorType, ...]:
        """What a chunk hands on to the next one."""
        return self._begins.forward.run.signature.results[self._results : self._results + self._form.states]

    def _kept(self, symbols: tuple[int, ...], pace: Pace) -> int:
        """How many times the states between two chunks are there: those kept, and those around a chunk."""
        last = pace.count(symbols[self._form.symbol]) - 1
        return last // pace.kept + (2 if pace.kept > 1 and last else 0)

    def _at(self, symbols: tuple[int, ...], steps: int) -> tuple[int, ...]:
        """The sizes of a chunk."""
        position = self._form.symbol
        return (*symbols[:position], steps, *symbols[position + 1 :])

    def _parts(self, symbols: tuple[int, ...]) -> Iterator[_Part]:
        total, pace = symbols[self._form.symbol], self.pace_at(symbols)
        count = pace.count(total)
        for number in range(count):
            first = number * pace.steps
            steps = min(pace.steps, total - first)
            step = self._continues if number else self._begins
            is_exact = number % pace.kept == 0
            yield _Part(step, number, first, steps, self._at(symbols, steps), is_exact, number == count - 1)

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


def _take(tensors: list[Tensor], count: int) -> list[Tensor]:
    """Take the last ones away."""
    taken = tensors[len(tensors) - count :]
    del tensors[len(tensors) - count :]
    return taken


def _part_of(tensor: Tensor, axis: int | None, part: _Part) -> Tensor:
    """A chunk of a tensor along an axis; all of it without one."""
    return tensor if axis is None else tensor.narrow(axis, part.first, part.count)
