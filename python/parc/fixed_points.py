"""`parc.fixed_point`: models that are equations x = step(x, ...), such as samplers and decoders with given noise."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch_mlir import ir

from parc.backends import find_backend
from parc.compiled import Compiled
from parc.compiler import Options
from parc.errors import CallError, CompileError
from parc.importers import Imported
from parc.importers.imported import Original
from parc.iteration import Iteration
from parc.module import Module, Source
from parc.parameters import Snapshot
from parc.target import Target
from parc.triangular import Dependences, Proof
from parc.triangular.step import close, import_step

Step = nn.Module | Callable[..., Tensor]

STRATEGIES = ("jacobi", "wavefront")

_CLOSE = 1e-3
"""How far one step may go from a fixed point, relative to the largest element: sums are taken in another order."""
_ROUNDINGS = 8
"""The same for types of low precision, in the last place of the largest element."""
_FEW = 0.02
"""The share of elements that one step may change by more, where rounding takes a value past a threshold."""


def fixed_point(
    step: Step,
    example_inputs: Sequence[object],
    *,
    strategy: str = "jacobi",
    iteration: Iteration | None = None,
    target: str = "cpu",
    threads: int | None = None,
    dynamic_shapes: object = None,
) -> "FixedPoint":
    """Compile the solution x of x = step(x, *inputs); the result is called as the step is, with a guess for x.

    step: an nn.Module, or a function, of x and any other inputs that returns a tensor of x's shape and element type.
        Some order has to compute its elements one after another; which one is found from the program, its masks and
        the zeros of its weights.
    example_inputs: the arguments of one call, x first.
    strategy: "jacobi" computes all elements in every sweep, from those of the sweep before, until nothing changes.
        "wavefront", of convolutions over an image x, computes each pixel of each layer once, all those at the same time
        that do not need each other; what is given for x does not matter then.
    iteration: its tolerance is the largest change of an element that counts as none.  Below 1 it makes no difference to
        discrete elements (0 and 1, tokens).  None is `parc.Iteration(tolerance=0)`: the result is that of computing the
        elements one after another with the same program, to the last bit.
    target, threads: as for `parc.compile`.
    dynamic_shapes: as for `parc.compile`; None lets the size of a batch vary from call to call, which is x's first
        dimension where its rows do not depend on each other, and nothing else; of "wavefront" all sizes of x that may.

    Raises `CompileError` where elements depend on each other, with names of such; calls raise `CallError` for arguments
    that do not fit, and where weights have changed so that other elements depend on each other.
    """
    if strategy not in STRATEGIES:
        raise ValueError(f"there is no strategy '{strategy}' for fixed points; choose from {', '.join(STRATEGIES)}")
    if iteration is not None and strategy != "jacobi":
        raise ValueError(f"iteration= is for jacobi: the strategy '{strategy}' makes no sweeps")
    if threads is not None and threads < 1:
        raise ValueError(f"threads is at least 1, not {threads}")
    if not isinstance(example_inputs, tuple | list) or not example_inputs or not isinstance(example_inputs[0], Tensor):
        raise ValueError("example_inputs are the arguments of one call, as a tuple whose first is the tensor x")
    iteration = iteration or Iteration(tolerance=0.0)
    if iteration != Iteration(tolerance=iteration.tolerance):
        raise ValueError(
            "of parc.Iteration, fixed points take the tolerance only: they start from the x of the call, and go on "
            "until it no longer changes, which takes no more steps than to compute its elements one after another"
        )
    waves = strategy == "wavefront"
    options = Options(strategy if waves else "auto", threads=threads or 0, target=Target.parse(target))
    module = FixedPoint(step, None if waves else iteration.tolerance, options, dynamic_shapes)
    module.build(tuple(example_inputs), {})
    return module


class FixedPoint(Module):
    """A compiled fixed point: called as its step is, with a guess to start from in place of x.

    `iterations` says how many sweeps the last call took.  Results carry no gradient.
    """

    def __init__(self, step: Step, tolerance: float | None, options: Options, dynamic_shapes: object) -> None:
        """A tolerance of None is for an order of single elements, which makes no sweeps."""
        super().__init__(
            _StepSource(model=step, dynamic_shapes=dynamic_shapes, tolerance=tolerance, found=_Found()), options
        )

    @property
    def dependences(self) -> Dependences:
        """Which elements of x depend on which others, and their order, at the smallest sizes that were traced."""
        return self._found.proof.smallest

    @property
    def bound(self) -> str:
        """The number of levels, so many sweeps a call takes at most, as a function of the sizes: `64`, or `T + 1`."""
        return self._found.proof.bound_text()

    def forward(self, *args: object, **kwargs: object) -> Any:
        """Solve for x; the first argument is what the first sweep starts from."""
        self._recheck()
        with torch.no_grad():
            return super().forward(*args, **kwargs)

    def build(self, args: Sequence[object], kwargs: Mapping[str, object], *, training: bool = False) -> Any:
        """Compile for calls like this one; CompileError when it cannot be."""
        built = super().build(args, kwargs, training=training)
        self._found.holds_for = built.parameters.current()
        if find_backend(self._options.target, self._options.threads).runs:
            self._compare(built.program.run, self._found.holds_for)
        return built

    @property
    def _found(self) -> "_Found":
        source: _StepSource = self._source
        return source.found

    @property
    def _tolerance(self) -> float | None:
        source: _StepSource = self._source
        return source.tolerance

    def _recheck(self) -> None:
        """Where the parameters have changed, find out whether the program still sweeps often enough."""
        now: Snapshot = self._built.parameters.current()
        found = self._found
        if now is found.holds_for:
            return
        if not found.proof.holds_for(now.tensors):
            if self._tolerance is None:
                raise CallError("weights that were zero have changed: x may depend on more elements; compile it again")
            try:
                again = found.proof.again(now.tensors)
            except CompileError as e:
                raise CallError(f"the weights have changed since the step was compiled: {e}") from e
            if again.exceeds(found.proof):
                raise CallError(
                    f"the weights have changed: x takes up to {again.bound_text()} sweeps now, and the program was "
                    f"compiled for {found.proof.bound_text()}; compile it again"
                )
            found.proof = again.with_bound_of(found.proof)
        found.holds_for = now

    def _compare(self, program: Compiled, parameters: Snapshot) -> None:
        """CompileError where a step of the original goes away from what the program finds."""
        original = self._found.original
        for sizes in original.sizes:
            try:
                inputs = original.inputs(sizes)
                with torch.no_grad():
                    original.run(inputs)
            except Exception:  # noqa: BLE001 (whatever a program raises at a size that it does not take)
                continue
            (x,) = program(program.sizes(inputs), inputs, parameters)
            with torch.no_grad():
                (after,) = original.run([x, *inputs[1:]])
            if wrong := self._changed(x, after):
                where = ", ".join(f"{name}={size}" for name, size in sizes.items()) or "the sizes of the example"
                raise CompileError(
                    f"the compiled program finds no fixed point: at {where} another step changes {wrong} of "
                    f"{x.numel()} elements; the step does something else at some sizes, or this is a bug in parc"
                )

    def _changed(self, x: Tensor, after: Tensor) -> int:
        """How many elements differ; 0 where no more do than rounding explains."""
        allowed = 0.0
        if x.is_floating_point():
            finite = x[x.isfinite()].abs()
            scale = max(1.0, float(finite.max())) if finite.numel() else 1.0
            allowed = max(scale * max(_CLOSE, _ROUNDINGS * torch.finfo(x.dtype).eps), self._tolerance or 0.0)
        near = torch.isclose(x.double(), after.double(), rtol=0.0, atol=allowed, equal_nan=True)
        wrong = int((~near).sum())
        return wrong if wrong > 1 + _FEW * x.numel() else 0


class _Found:
    """What is known about a step once it is imported."""

    proof: Proof
    original: Original
    holds_for: Snapshot | None = None
    """The parameters for which the proof was checked last."""


@dataclass(frozen=True, kw_only=True)
class _StepSource(Source):
    """A step, imported as the program that sweeps."""

    tolerance: float | None
    found: _Found

    def load_on(self, device: torch.device, args: Sequence[object], kwargs: Mapping[str, object]) -> Imported:
        """Import the step; comparing it with the program is not for the compiler, which would compare results."""
        imported = super().load_on(device, args, kwargs)
        assert imported.original is not None
        self.found.original = imported.original
        return replace(imported, original=None)

    def load(self, args: Sequence[object], kwargs: Mapping[str, object], context: ir.Context) -> Imported:
        """Import the step with the arguments of one call, and prove that its elements can be computed."""
        step, sweeps = cast(Step, self.model), self.tolerance is not None
        imported, proof = import_step(step, args, kwargs, context, self.dynamic_shapes, batch_only=sweeps)
        self.found.proof = proof
        if self.tolerance is not None:
            return close(imported, proof, self.tolerance)
        from parc.pixels.sampler import sampler  # only now: sweeps do without it

        return replace(sampler(imported), original=imported.original)
