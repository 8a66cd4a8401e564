"""Runs the pipelines on an imported program: from traces to a callable, checked against the original."""

import re
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor
from torch_mlir import ir
from torch_mlir.dialects import func

from parc.backends import Backend, find_backend
from parc.codegen.blocks.target import PERSISTENT, WAVES
from parc.codegen.irtools import argument_kind, copy_module, find_function, walk
from parc.comparison import compare_results
from parc.compiled import Compiled
from parc.errors import CompileError
from parc.importers import Imported
from parc.importers.imported import Original
from parc.iteration import Iteration
from parc.jit import JitError
from parc.parameters import Parameters
from parc.pipelines import Step, run_pipeline, stage_of, stage_steps, stages_after, steps_until
from parc.planned import Planned
from parc.read_module import read_facts, read_signature
from parc.runtime.executable import Executable
from parc.sensitivity import Sources, sensitivities
from parc.signature import Signature, TensorType, short_name
from parc.target import Target

_QUIET_SECONDS = 2.0
# Names that a pass's options take.
_PLAIN = re.compile(r"[^\s,{}()$]+")


@dataclass(frozen=True)
class Options:
    """How to compile: `threads`, of a GPU blocks, are as many as there are where they are 0."""

    strategy: str = "auto"
    iteration: Iteration | None = None
    """How iterative strategies sweep; without one, "auto" chooses none of them."""
    threads: int = 0
    target: Target = field(default_factory=Target)
    launches: str = "once"
    """Of a GPU's program: "once" or "waves"."""


class Progress:
    """Names the stages of a compile on stderr once it takes longer than two seconds."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._start = time.monotonic()

    def __call__(self, stage: str) -> None:
        seconds = time.monotonic() - self._start
        if seconds > _QUIET_SECONDS:
            print(f"parc: compiling {self._what}: {stage} ({seconds:.0f} s)", file=sys.stderr)


@dataclass(frozen=True)
class Program:
    """A compiled program, and its scheduled module for reports."""

    run: Compiled
    scheduled: ir.Module


class Compiler:
    """Takes an imported program, and those made from it, through the stages; all run on one team, in one arena.

    The imported module itself is taken to the stage "system" and stays there; later stages work on copies.
    """

    def __init__(self, imported: Imported, options: Options, name: str, backend: Backend | None = None) -> None:
        """CompileError when the imported module cannot be taken to the stage "system".

        `backend` is that of the program which this one was made from; DeviceError for a GPU that is not there.
        """
        # The parameters are not held on to: others may take their places.
        self._imported = replace(imported, parameters={})
        self._name = name
        self._progress = Progress(name)
        self._options = options
        self._backend = backend or find_backend(options.target, options.threads)
        self._stage = stage_of(imported.module)
        if self._stage == "adjoint":
            raise CompileError("the module holds both programs of a training step: compile what they were made from")
        if stages := stages_after(self._stage, "system"):
            self._run(imported.module, stages)
            self._stage = "system"

    @property
    def original(self) -> Original | None:
        """What compiled programs are compared with, where they run here."""
        return self._imported.original if self._backend.runs else None

    @property
    def precision(self) -> str:
        """What products of f32 round their factors to; "f32" is exact."""
        return self._backend.precision

    @property
    def sizes(self) -> Mapping[str, int]:
        """The symbols' values in the example call."""
        return self._imported.sizes

    def schedule(self, derived: ir.Module | None = None) -> ir.Module:
        """The program, or one derived from it, with scheduled systems; at a later stage if it was imported at one."""
        module = copy_module(self._imported.module) if derived is None else derived
        done = self._stage if derived is None else "adjoint"
        self._run(module, stages_after(done, "schedule"))
        return module

    def copy(self) -> ir.Module:
        """A copy of the program, at the stage that it is at."""
        return copy_module(self._imported.module)

    def derive(self, module: ir.Module) -> "Compiler":
        """The compiler of a program that was made from a copy of this one; on the same team, in the same arena."""
        imported = replace(self._imported, module=module, original=None)
        return Compiler(imported, self._options, self._name, self._backend)

    def inference(self, tensors: Mapping[str, Tensor]) -> tuple[Program, Parameters]:
        """The program, compared with the original, and its parameters: `tensors` by name, in their order."""
        program = self._assemble(copy_module(self._imported.module), self._stage)
        types = program.run.signature.parameters
        _check_names(types, tensors)
        parameters = Parameters(types, tensors, self._imported.owner, program.run.device)
        if self.original is not None:
            self._progress("comparing with the original")
            compare_results(program.run, parameters, self.original, self.precision)
        return program, parameters

    def sensitivities(self) -> list[Sources]:
        """For each result, the arguments (inputs, then parameters) that it can have a gradient by."""
        return sensitivities(_main(self._imported.module))

    def adjoint(self, wanted: Sequence[int] = ()) -> tuple[ir.Module, ir.Module]:
        """The two programs of a training step, unscheduled (docs/training.md).

        The forward program gives saved values as well; the backward program gives the gradients of the arguments with
        these numbers (inputs, then parameters), of all floating-point ones when there are none.
        """
        from parc.autodiff import programs  # only now: inference does without it

        if self._stage != "system":
            raise CompileError(
                f"cannot differentiate IR at the stage '{self._stage}': training starts from systems without schedules"
            )
        module = copy_module(self._imported.module)
        module.operation.attributes["parc.trained"] = ir.UnitAttr.get(module.context)
        _refuse_complex(_main(module))
        names = _name_arguments(_main(module))
        self._run(module, ["adjoint"], [names[i] for i in wanted])
        return programs(module)

    def training(self, wanted: Sequence[int]) -> tuple[Program, Program]:
        """The forward and the backward program of a training step."""
        self._progress = Progress(f"{self._name} for training")
        forward, backward = self.adjoint(wanted)
        return self.program(forward), self.program(backward, sizes_given=True)

    def program(self, derived: ir.Module, *, sizes_given: bool = False) -> Program:
        """A program derived from this one, at the stage "adjoint"; with `sizes_given`, calls say what the sizes are."""
        return self._assemble(derived, "adjoint", sizes_given=sizes_given)

    def planned(self, scheduled: ir.Module, *, sizes_given: bool = False) -> Planned:
        """What a scheduled program takes, without making code; with `sizes_given`, calls say what the sizes are."""
        module = copy_module(scheduled)
        self._run(module, stages_after("schedule", "loops"))
        signature = self._signature(module, sizes_given=sizes_given)
        stage, last = ("llvm", "plan-buffers") if self._backend.codegen == "cpu" else ("gpu", "distribute-grid")
        run_pipeline(module, steps_until(self._steps(stage), last))
        return Planned(signature, read_facts(module, signature.symbols), self._backend.members)

    def _signature(self, module: ir.Module, *, sizes_given: bool) -> Signature:
        return read_signature(_main(module), self._imported.least, self._imported.unsigned, sizes_given=sizes_given)

    def _assemble(self, module: ir.Module, done: str | None, *, sizes_given: bool = False) -> Program:
        """From the stage `done` to a callable; with `sizes_given`, calls say what the sizes are."""
        stages = stages_after(done, "schedule")
        self._run(module, stages)
        scheduled = copy_module(module)
        self._run(module, stages_after("schedule" if stages else done, "loops"))
        signature = self._signature(module, sizes_given=sizes_given)
        self._run(module, stages_after("loops", self._backend.stage))
        self._progress("machine code")
        return Program(Compiled(self._machine_code(module, signature), signature), scheduled)

    def _machine_code(self, module: ir.Module, signature: Signature) -> Executable:
        try:
            return self._backend.executable(module, signature.symbols)
        except JitError as e:
            tensors = (*signature.inputs, *signature.parameters, *signature.results)
            types = ", ".join(sorted({short_name(t.dtype) for t in tensors}))
            raise CompileError(
                f"LLVM cannot make this program for this machine ({e}); its element types: {types}"
            ) from e

    def _run(self, module: ir.Module, stages: Sequence[str], wanted: Sequence[str] = ()) -> None:
        for stage in stages:
            self._progress(stage)
            run_pipeline(module, self._steps(stage, wanted))

    def _steps(self, stage: str, wanted: Sequence[str] = ()) -> list[Step]:
        backend = self._backend
        return stage_steps(
            stage,
            strategy=self._options.strategy,
            iteration=self._options.iteration,
            threads=self._options.threads if backend.codegen == "cpu" else backend.members,
            sizes=self._imported.sizes,
            wrt=wanted,
            target=backend.codegen,
            precision=backend.precision,
            form=PERSISTENT if self._options.launches == "once" else WAVES,
        )


def _main(module: ir.Module) -> func.FuncOp:
    main = find_function(module, "main")
    if main is None:
        raise CompileError("the module has no function @main of the func dialect")
    return main


def _refuse_complex(main: func.FuncOp) -> None:
    values = [(a, main) for a in main.arguments]
    values += [(r, op) for op in walk(main) for r in op.operation.results]
    for value, op in values:
        if isinstance(value.type, ir.ShapedType) and isinstance(value.type.element_type, ir.ComplexType):
            raise CompileError("complex numbers have no derivative here: see torch.view_as_real", op.location)


def _name_arguments(main: func.FuncOp) -> list[str]:
    """Give inputs and parameters names that differ and that can be written in a pass's options; returns them."""
    attributes = [{named.name: named.attr for named in ir.DictAttr(a)} for a in main.arg_attrs]
    tensors = [a for a in attributes if argument_kind(ir.DictAttr.get(a, main.context)) != "symbol"]
    names: list[str] = []
    for i, attribute in enumerate(tensors):
        name = ir.StringAttr(attribute["parc.name"]).value if "parc.name" in attribute else ""
        if not _PLAIN.fullmatch(name) or name in names:
            name = f"argument{i}"
        names.append(name)
        attribute["parc.name"] = ir.StringAttr.get(name, main.context)
    main.arg_attrs = ir.ArrayAttr.get([ir.DictAttr.get(a, main.context) for a in attributes], main.context)
    return names


def _check_names(types: Sequence[TensorType], tensors: Mapping[str, Tensor]) -> None:
    expected = [t.name for t in types]
    if expected != list(tensors):
        raise CompileError(f"the program's parameters are {expected}; the importer gave {list(tensors)}")
