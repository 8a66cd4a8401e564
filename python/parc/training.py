"""Training: compiled programs as an operation of torch.autograd.

A training step has two programs, made for the arguments that get a gradient: one computes the results and the values
to save, the other computes the gradients from those.  They are compiled when a backward pass first needs them.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from parc.comparison import compare_gradients, compare_results
from parc.compiled import Compiled
from parc.compiler import Compiler
from parc.errors import CallError, CompileError
from parc.iteration_state import IterationState
from parc.memory import Memory, Need, bytes_text
from parc.memory_report import StepMemory
from parc.parameters import Parameters, Snapshot
from parc.sensitivity import Sources
from parc.signature import TensorType
from parc.step import Arguments, Step

if TYPE_CHECKING:
    from parc.chunks.training import ChunkedStep


@dataclass(frozen=True)
class MemoryPlan:
    """How a training step of some sizes keeps to its limit."""

    step: "Step | ChunkedStep"
    need: Need
    why: str
    refusal: str = ""
    """What is wrong where no way keeps to the limit; the step is then the one that takes least."""


class Training:
    """The training of one program: its steps, one for each set of arguments that get a gradient."""

    def __init__(
        self,
        compiler: Compiler,
        program: Compiled,
        parameters: Parameters,
        memory: int | None,
        iterations: IterationState,
    ) -> None:
        """`memory` limits what a step takes, in bytes; its programs share `iterations` with that for inference."""
        self._compiler = compiler
        self._program = program
        self._parameters = parameters
        self._memory = memory
        self._iterations = iterations
        self._steps: dict[Arguments, Step] = {}
        self._chunked: dict[Arguments, tuple[ChunkedStep | None, str]] = {}
        self._lock = threading.Lock()

    def wanted(self, inputs: Sequence[Tensor], parameters: Snapshot) -> Arguments:
        """The arguments that require a gradient, as far as the results depend on them."""
        count = len(self._program.signature.inputs)
        asked = [i for i, t in enumerate(inputs) if t.requires_grad]
        asked += [i for i, t in enumerate(parameters.tensors, count) if t.requires_grad]
        return tuple(i for i in asked if i in self._reachable) if asked else ()

    def prepare(self, inputs: Sequence[Tensor]) -> None:
        """Compile the step for calls like this one; without inputs, for the parameters. CompileError when it cannot be.

        ValueError when nothing requires a gradient.
        """
        wanted = self.wanted(inputs, self._parameters.current())
        if not wanted:
            raise ValueError("neither a parameter nor an example input requires a gradient that the results depend on")
        step = self.step(wanted)
        if inputs:
            try:
                self.fitting(step, self._program.sizes(inputs))
            except CallError as e:
                raise CompileError(str(e)) from None

    def __call__(
        self, wanted: Arguments, symbols: tuple[int, ...], inputs: Sequence[Tensor], parameters: Snapshot
    ) -> tuple[Tensor, ...]:
        """The results, as part of the graph of torch.autograd."""
        if wanted[-1] >= len(inputs):
            parameters = self._parameters.current(anew=True)
        return _Operation.apply(_Call(self, wanted, symbols, len(inputs), parameters), *inputs, *parameters.tensors)

    def step(self, wanted: Arguments) -> Step:
        """The step for these arguments; compiles it the first time. CompileError when that cannot be done."""
        with self._lock:
            if wanted not in self._steps:
                forward, backward = self._compiler.training(wanted)
                step = Step(forward, backward, len(self._program.signature.results), wanted)
                self._compare(step)
                step.share(self._iterations)
                self._steps[wanted] = step
            return self._steps[wanted]

    def known_step(self, wanted: Arguments) -> Step | None:
        """The step for these arguments, if it has been compiled."""
        return self._steps.get(wanted)

    def latest(self) -> Step | None:
        """The step that was compiled last."""
        return next(reversed(self._steps.values()), None)

    def memory(self, wanted: Arguments, symbols: tuple[int, ...]) -> Memory:
        """The memory of a step for these arguments at these sizes; compiles it the first time."""
        step = self.fitting(self.step(wanted), symbols)
        need = step.need(symbols)
        gradients = sum(self._arguments[i].bytes(symbols) for i in wanted)
        call = self._program.memory(symbols)
        prepared = (
            call.prepared + step.forward.run.memory(symbols).prepared + step.backward.run.memory(symbols).prepared
        )
        return replace(call, prepared=prepared, arena=need.working, places=(), saved=need.saved, gradients=gradients)

    def report(self, step: Step, symbols: tuple[int, ...]) -> StepMemory:
        """What a step takes at these sizes, in the way that keeps the limit, or takes least."""
        plan = self.plan(step, symbols)
        report = plan.step.report(symbols, plan.refusal or plan.why)
        return replace(report, plan="refused") if plan.refusal else report

    def fitting(self, step: Step, symbols: tuple[int, ...]) -> "Step | ChunkedStep":
        """The step itself where it keeps the memory limit at these sizes, else one that keeps states alone between
        chunks of the sequence; `CallError` when that takes too much, too."""
        plan = self.plan(step, symbols)
        if plan.refusal:
            raise CallError(plan.refusal)
        return plan.step

    def plan(self, step: Step, symbols: tuple[int, ...]) -> MemoryPlan:
        """The fastest way that keeps the memory limit at these sizes."""
        need = step.need(symbols)
        if self._memory is None:
            return MemoryPlan(step, need, "there is no limit")
        limit = bytes_text(self._memory)
        if need.total <= self._memory:
            return MemoryPlan(step, need, f"it keeps to the limit of {limit}")
        best: Step | ChunkedStep = step
        least = need
        chunked, reason = self._in_chunks(step.wanted)
        if chunked is not None:
            in_chunks = chunked.need(symbols)
            if in_chunks.total <= self._memory:
                reasons = (
                    f"a full save takes {bytes_text(need.total)}, the limit is {limit}",
                    chunked.why(symbols),
                    reason,
                )
                return MemoryPlan(chunked, in_chunks, "; ".join(filter(None, reasons)))
            if in_chunks.total < need.total:
                best, least = chunked, in_chunks
        names = self._program.signature.symbols
        where = ", ".join(f"{name}={size}" for name, size in zip(names, symbols, strict=True))
        refusal = (
            f"a training step{f' at {where}' if where else ''} takes at least {least}; "
            f"the limit is {limit}{f' ({reason})' if reason else ''}"
        )
        return MemoryPlan(best, least, "it takes least", refusal)

    def _in_chunks(self, wanted: Arguments) -> "tuple[ChunkedStep | None, str]":
        """The step for these arguments in chunks, and what it cannot do and why; compiles it the first time."""
        from parc.chunks.systems import NoChunksError  # only now: few steps need chunks
        from parc.chunks.training import chunked_step

        with self._lock:
            if wanted not in self._chunked:
                try:
                    chunked, reason = chunked_step(self._compiler, wanted)
                except NoChunksError as e:
                    self._chunked[wanted] = None, f"it has no chunks: {e}"
                else:
                    self._compare(chunked)
                    chunked.share(self._iterations)
                    chunked.limit = self._memory
                    if reason:
                        reason = f"states cannot be computed backwards: {reason}"
                    self._chunked[wanted] = chunked, reason
            return self._chunked[wanted]

    def _compare(self, step: "Step | ChunkedStep") -> None:
        """CompileError when the gradients are not those of the original."""
        original, precision = self._compiler.original, self._compiler.precision
        if original is not None:
            names = {i: self._arguments[i].name for i in step.wanted}
            if isinstance(step, Step):
                compare_results(step.forward.run, self._parameters, original, precision)
            parameters = self._parameters.current()
            compare_gradients(step.differentiate, names, parameters, original, precision, step.tolerance)

    def run(self, call: "_Call", tensors: Sequence[Tensor]) -> list[Tensor]:
        """The results alone."""
        return self._program(call.symbols, tensors[: call.inputs], call.parameters)

    def non_differentiable(self, results: Sequence[Tensor], wanted: Arguments) -> list[Tensor]:
        """Those of the results that have no gradient by any of these arguments."""
        return [t for t, sources in zip(results, self._sensitivities, strict=True) if sources.isdisjoint(wanted)]

    def reached(self, results: Sequence[int]) -> Sources:
        """The arguments that any of these results depends on."""
        return frozenset().union(*(self._sensitivities[i] for i in results))

    @property
    def _arguments(self) -> tuple[TensorType, ...]:
        return (*self._program.signature.inputs, *self._program.signature.parameters)

    @cached_property
    def _sensitivities(self) -> list[Sources]:
        return self._compiler.sensitivities()

    @cached_property
    def _reachable(self) -> Sources:
        return self.reached(range(len(self._sensitivities)))


@dataclass(frozen=True)
class _Call:
    """One call of a program: what `_Operation` needs besides the tensors."""

    training: Training
    wanted: Arguments
    symbols: tuple[int, ...]
    inputs: int
    """How many of the tensors are inputs."""
    parameters: Snapshot


class _Operation(torch.autograd.Function):
    """A call of a compiled program: (call, inputs, parameters) -> results.

    The first call for a set of arguments saves its inputs, and the step is compiled when its backward pass comes:
    who never asks for a gradient does not pay for one.
    """

    @staticmethod
    def forward(ctx: Any, call: _Call, *tensors: Tensor) -> tuple[Tensor, ...]:
        training = call.training
        ctx.training, ctx.wanted, ctx.symbols, ctx.inputs = training, call.wanted, call.symbols, call.inputs
        known = training.known_step(call.wanted)
        ctx.step = step = None if known is None else training.fitting(known, call.symbols)
        ctx.count = len(tensors)
        ctx.set_materialize_grads(False)
        if step is None:
            results = training.run(call, tensors)
            ctx.save_for_backward(*tensors)
        else:
            results, saved = step.run_forward(call.symbols, tensors[: call.inputs], call.parameters)
            ctx.save_for_backward(*(tensors[i] for i in step.kept), *saved)
        ctx.mark_non_differentiable(*training.non_differentiable(results, call.wanted))
        return tuple(results)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:
        tensors: tuple[Tensor, ...] = ctx.saved_tensors
        sources = [t for t in (*tensors, *cotangents) if t is not None and t.requires_grad]
        with torch.no_grad():
            gradients = _gradients(ctx, tensors, cotangents)
        if torch.is_grad_enabled() and sources:
            gradients = _Once.apply(gradients, *sources)
        given = ctx.training.reached([i for i, c in enumerate(cotangents) if c is not None])
        found = {i: g for i, g in zip(ctx.wanted, gradients, strict=True) if i in given}
        return (None, *(found.get(i) for i in range(ctx.count)))


def _gradients(ctx: Any, tensors: Sequence[Tensor], cotangents: Sequence[Tensor | None]) -> list[Tensor]:
    step: Step | ChunkedStep | None = ctx.step
    if step is not None:
        kept, saved = tensors[: len(step.kept)], tensors[len(step.kept) :]
    else:
        step = ctx.training.fitting(ctx.training.step(ctx.wanted), ctx.symbols)
        saved = step.run_forward(ctx.symbols, tensors[: ctx.inputs], Snapshot(tensors[ctx.inputs :]))[1]
        kept = [tensors[i] for i in step.kept]
    if ctx.wanted[-1] >= ctx.inputs:
        step.renew()
    return step.run_backward(ctx.symbols, [cotangents[i] for i in step.floating], saved, kept)


class _Once(torch.autograd.Function):
    """Marks gradients as depending on what they were computed from, without giving second derivatives."""

    @staticmethod
    def forward(ctx: Any, gradients: Sequence[Tensor], *sources: Tensor) -> tuple[Tensor, ...]:
        return tuple(gradients)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> None:
        raise CallError(
            "second derivatives through a compiled module are not supported: differentiate the original module instead"
        )
