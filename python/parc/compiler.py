"""Runs the pipelines on an imported program: from traces to a callable, checked against the original."""

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch_mlir import ir

from parc.codegen.irtools import find_function
from parc.compiled import Compiled
from parc.errors import CallError, CompileError, ParcError
from parc.importers import Imported
from parc.importers.imported import Original
from parc.parameters import Parameters
from parc.pipelines import run_pipeline, stage_of, stage_steps, stages_after
from parc.runtime import Team
from parc.runtime.executable import Executable
from parc.signature import Signature, TensorType, short_name

_QUIET_SECONDS = 2.0
# How far results may be from the original's, relative to the largest value: sums are taken in another order.
_TOLERANCE = {torch.float64: 1e-8, torch.float32: 1e-3, torch.complex64: 1e-3, torch.complex128: 1e-8}
_LOW_PRECISION = 5e-2


@dataclass(frozen=True)
class Options:
    """How to compile: `threads` 0 means as many as this process may use."""

    strategy: str = "auto"
    threads: int = 0


class Progress:
    """Names the stages of a compile on stderr once it takes longer than two seconds."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._start = time.monotonic()

    def __call__(self, stage: str) -> None:
        seconds = time.monotonic() - self._start
        if seconds > _QUIET_SECONDS:
            print(f"parc: compiling {self._what}: {stage} ({seconds:.0f} s)", file=sys.stderr)


def compile_imported(imported: Imported, options: Options, name: str) -> tuple[Compiled, ir.Module]:
    """The callable, and a copy of the scheduled module for reports; CompileError when it cannot be made."""
    module, progress = imported.module, Progress(name)
    done = schedule(imported, options, progress)
    scheduled = ir.Module.parse(str(module), module.context)
    _run_stages(module, stages_after(done, "loops"), options, progress)
    main = find_function(module, "main")
    if main is None:
        raise CompileError("the module has no function @main of the func dialect")
    signature = Signature.of(main, imported.least, imported.unsigned)
    _check_names(signature.parameters, imported.parameters)
    _run_stages(module, stages_after("loops", "llvm"), options, progress)
    progress("machine code")
    executable = _machine_code(module, signature, options)
    compiled = Compiled(executable, signature, Parameters(signature.parameters, imported.parameters, imported.owner))
    if imported.original is not None:
        progress("comparing with the original")
        compare(compiled, imported.original)
    return compiled, scheduled


def schedule(imported: Imported, options: Options, progress: Progress) -> str:
    """Take an imported module to scheduled systems, in place; the stage that it is at then, a later one if it was."""
    at = stage_of(imported.module)
    stages = stages_after(at, "schedule")
    _run_stages(imported.module, stages, options, progress, imported.sizes)
    return stages[-1] if stages or at is None else at


def _run_stages(
    module: ir.Module,
    stages: Sequence[str],
    options: Options,
    progress: Progress,
    sizes: Mapping[str, int] | None = None,
) -> None:
    for stage in stages:
        progress(stage)
        run_pipeline(module, stage_steps(stage, strategy=options.strategy, threads=options.threads, sizes=sizes))


def _machine_code(module: ir.Module, signature: Signature, options: Options) -> Executable:
    try:
        return Executable(module, Team(options.threads or None))
    except ParcError as e:
        tensors = (*signature.inputs, *signature.parameters, *signature.results)
        types = ", ".join(sorted({short_name(t.dtype) for t in tensors}))
        raise CompileError(f"LLVM cannot make this program for this machine ({e}); its element types: {types}") from e


def _check_names(types: Sequence[TensorType], tensors: Mapping[str, Tensor]) -> None:
    expected = [t.name for t in types]
    if expected != list(tensors):
        raise CompileError(f"the program's parameters are {expected}; the importer gave {list(tensors)}")


def compare(compiled: Compiled, original: Original) -> None:
    """Run both programs at sizes that were not traced; CompileError when their results differ.

    Sizes that the original does not take are left out.
    """
    for sizes in original.sizes:
        try:
            inputs = original.inputs(sizes)
            expected = original.run(inputs)
        except Exception:  # noqa: BLE001 (whatever a program raises at a size that it does not take)
            continue
        where = ", ".join(f"{name}={value}" for name, value in sizes.items()) or "the sizes of the example"
        try:
            results = compiled(inputs)
        except CallError as e:
            raise CompileError(f"the model runs at {where} but the compiled program does not: {e}") from e
        for i, (result, reference) in enumerate(zip(results, expected, strict=True)):
            if difference := _difference(result, reference):
                raise CompileError(
                    f"the compiled program does not compute what the model does: at {where}, result {i} {difference}; "
                    "the model does something else at some sizes, or this is a bug in parc"
                )


def _difference(result: Tensor, reference: Tensor) -> str:
    """What differs, in words; an empty string when the tensors agree."""
    if result.shape != reference.shape:
        return f"has shape {list(result.shape)} instead of {list(reference.shape)}"
    if result.dtype is not reference.dtype:
        return f"is {short_name(result.dtype)} instead of {short_name(reference.dtype)}"
    if not (reference.is_floating_point() or reference.is_complex()):
        wrong = int((result != reference).sum())
        return f"differs in {wrong} of {reference.numel()} values" if wrong else ""
    finite = reference[reference.isfinite()].abs()
    scale = max(1.0, float(finite.max())) if finite.numel() else 1.0
    allowed = _TOLERANCE.get(reference.dtype, _LOW_PRECISION) * scale
    if torch.allclose(result, reference, rtol=0, atol=allowed, equal_nan=True):
        return ""
    error = (result - reference).abs().nan_to_num(torch.inf).max()
    return f"is off by {float(error):.2g} (values up to {scale:.2g})"
