"""`parc.Module`: the compiled stand-in of a model."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch_mlir import ir

from parc import dialect
from parc.backends import find_backend
from parc.call_structure import Structure
from parc.compiled import refuse_transforms
from parc.compiler import Compiler, Options, Program
from parc.errors import CallError
from parc.importers import Imported, import_model, import_path
from parc.importers.on_device import import_on
from parc.iteration import Iterations
from parc.iteration_state import IterationState
from parc.memory import Memory
from parc.memory_report import MemoryReport, sizes_of
from parc.parameters import Parameters, container
from parc.report import Report, explain_module, explain_training
from parc.signature import short_name
from parc.training import Training

Model = nn.Module | Callable[..., object] | torch.export.ExportedProgram | str | os.PathLike[str]


@dataclass(frozen=True)
class Source:
    """What is to be compiled, as the user gave it."""

    model: Model
    dynamic_shapes: object = None

    @staticmethod
    def of(model: "Model | Module", dynamic_shapes: object) -> "Source":
        """A source; of a module that is compiled already, its original."""
        return Source(model._source.model if isinstance(model, Module) else model, dynamic_shapes)

    @property
    def name(self) -> str:
        """What messages call it."""
        if isinstance(self.model, str | os.PathLike):
            return Path(self.model).name
        return getattr(self.model, "__name__", type(self.model).__name__)

    def load_on(self, device: torch.device, args: Sequence[object], kwargs: Mapping[str, object]) -> Imported:
        """Import it for programs whose tensors are on `device`, as the arguments and the model's are."""
        if device.type == "cpu":
            return self.load(args, kwargs, ir.Context())
        return import_on(device, self.model, args, kwargs, partial(self.load, context=ir.Context()))

    def load(self, args: Sequence[object], kwargs: Mapping[str, object], context: ir.Context) -> Imported:
        """Import it with the arguments of one call."""
        dialect.load(context)
        if isinstance(self.model, str | os.PathLike):
            return import_path(self.model, context, args=args, kwargs=kwargs, dynamic_shapes=self.dynamic_shapes)
        return import_model(self.model, args, kwargs, context, dynamic_shapes=self.dynamic_shapes)


@dataclass(frozen=True)
class _Built:
    """What a compile leaves behind."""

    program: Program
    parameters: Parameters
    training: Training
    structure: Structure
    modes: tuple[tuple[nn.Module, bool], ...]
    """The parts of the original and whether they were training, where that matters."""
    autocast: torch.dtype | None
    """What `torch.autocast` was set to."""
    sizes: Mapping[str, int]
    """The values of the symbols in the example call."""


class Module(nn.Module):
    """A compiled model: called as the original, with the original's parameters and buffers, by the same names.

    Weights that change in the original or here (`load_state_dict`, an optimizer's step, another tensor assigned) are
    used at the next call.  Writes through `.data` or numpy, which torch does not count, pass unseen as long as no call
    is for a gradient of the parameters.  Calls raise `CallError` for arguments that do not fit.

    Where torch records gradients, results have them (docs/training.md); the programs of a training step are compiled
    when the first backward pass needs them.  `memory` limits what a step takes, in bytes.
    """

    def __init__(self, source: Source, options: Options, memory: int | None = None) -> None:
        super().__init__()
        # The original is no submodule, which would put a name in front of all of its.
        self.__dict__.update(_source=source, _options=options, _memory=memory, _built=None, _original=None)
        self.__dict__["_iterations"] = IterationState()
        if isinstance(source.model, nn.Module) and not isinstance(source.model, torch.jit.ScriptModule):
            self._share(source.model)

    def forward(self, *args: object, **kwargs: object) -> Any:
        """Call the compiled program; compiles it first if that has not happened."""
        built = self._built if self._built is not None else self.build(args, kwargs)
        inputs = built.structure.flatten(args, kwargs)
        _check_state(built, inputs)
        program = built.program.run
        symbols, parameters = program.sizes(inputs), built.parameters.current()
        wanted = built.training.wanted(inputs, parameters) if torch.is_grad_enabled() else ()
        if wanted:
            return built.structure.pack(built.training(wanted, symbols, inputs, parameters))
        return built.structure.pack(program(symbols, inputs, parameters))

    def build(self, args: Sequence[object], kwargs: Mapping[str, object], *, training: bool = False) -> _Built:
        """Compile for calls like this one, with `training` for training steps too; CompileError when it cannot be."""
        autocast = _autocast()
        backend = find_backend(self._options.target, self._options.threads)
        with _casting_to(autocast):
            imported = self._source.load_on(backend.device, args, kwargs)
        if training:
            # A solver that was asked for may then be meant for the backward program alone.
            imported.module.operation.attributes["parc.trained"] = ir.UnitAttr.get(imported.module.context)
        original = imported.original and replace(imported.original, run=_casting_to(autocast)(imported.original.run))
        owner = imported.owner or container([(name, t, True) for name, t in imported.parameters.items()])
        self._share(owner)
        imported = replace(imported, owner=owner, original=original)
        compiler = Compiler(imported, self._options, self._source.name, backend)
        program, parameters = compiler.inference(imported.parameters)
        parts = owner.modules() if imported.mode_matters else ()
        steps = Training(compiler, program.run, parameters, self._memory, self._iterations)
        program.run.share(self._iterations)
        modes = tuple((p, p.training) for p in parts)
        built = _Built(program, parameters, steps, imported.structure, modes, autocast, imported.sizes)
        if training:
            steps.prepare(imported.structure.flatten(args, kwargs) if args or kwargs else ())
        self.__dict__["_built"] = built
        return built

    def memory(self, *args: object, **kwargs: object) -> Memory:
        """What a call with these arguments takes, as planned; of a training step, where torch records gradients.

        Compiles what the call needs.
        """
        built = self._built if self._built is not None else self.build(args, kwargs)
        inputs = built.structure.flatten(args, kwargs)
        symbols, parameters = built.program.run.sizes(inputs), built.parameters.current()
        wanted = built.training.wanted(inputs, parameters) if torch.is_grad_enabled() else ()
        return built.training.memory(wanted, symbols) if wanted else built.program.run.memory(symbols)

    @property
    def iterations(self) -> dict[str, Iterations]:
        """How each iteration went in the last call that ran it, by its name (those of `explain`).

        Waits for a GPU to finish that call.
        """
        return self._iterations.last

    def start_from(self, guesses: Mapping[str, Tensor] | None) -> None:
        """Say what the next call's iterations start from, of programs compiled with `parc.Iteration(start="previous")`.

        guesses: arrays by the names in `explain`; others start from what the last call of the same sizes ended with, as
            all do after the next call.  None forgets that: the next call starts from zeros.

        The next call raises `CallError` for a name that no program knows, and for another type or shape than its own.
        """
        self._iterations.guess(guesses)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the program and its weights as they are now to one file, which `parc.load` runs without a compiler.

        Programs of training steps are left out: a loaded program computes no gradients.  SaveError for arguments or
        results of types that the file cannot describe, OSError when it cannot be written.
        """
        from parc.deploy.save import save  # only now: it needs llvmlite

        if self._built is None:
            raise CallError("not compiled yet: call it once, or give parc.compile example inputs")
        built = self._built
        save(
            path,
            self._source.name,
            built.program.run.image(),
            built.structure,
            built.parameters.current().tensors,
            self,
        )

    def explain(self, sizes: Mapping[str, int] | None = None) -> Report:
        """Report on the equations, dependences, schedule and memory, of both programs once a step was compiled.

        sizes: values of the symbols, for the numbers.
        """
        if self._built is None:
            raise CallError("not compiled yet: call it once, or give parc.compile example inputs")
        program, training = self._built.program, self._built.training
        step = training.latest()
        if step is None:
            report = explain_module(program.scheduled, sizes)
        else:
            report = explain_training(step.forward.scheduled, step.backward.scheduled, sizes)
        at = sizes_of(program.run.signature, sizes or {}, report.sizes, self._built.sizes)
        symbols = tuple(at.values())
        memory = None if step is None else training.report(step, symbols)
        report = report.with_last(self.iterations)
        return replace(report, memory=MemoryReport(at, program.run.memory(symbols), memory))

    def _share(self, original: nn.Module) -> None:
        """Make the original's registries this module's own, so that all of `nn.Module` works on them."""
        shared = ("_parameters", "_buffers", "_modules", "_non_persistent_buffers_set", "training")
        self.__dict__.update({name: original.__dict__[name] for name in shared}, _original=original)

    def train(self, mode: bool = True) -> "Module":
        """Set the mode of the original too; where that changes what it computes, calls ask for another compile."""
        if self._original is not None:
            self._original.train(mode)
        return super().train(mode)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            original = self.__dict__.get("_original")
            if original is None:
                raise
            return getattr(original, name)

    def __setattr__(self, name: str, value: Any) -> None:
        # The original may do more than to register the value, as nn.LSTM does for its weights.
        if self._original is not None and any(name in r for r in (self._parameters, self._buffers, self._modules)):
            setattr(self._original, name, value)
        else:
            super().__setattr__(name, value)

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError("a compiled module cannot be copied or pickled: copy the original and compile the copy")

    def __repr__(self) -> str:
        if self._built is None:
            return f"parc.Module({self._source.name}, not compiled yet)"
        signature = self._built.program.run.signature
        inputs = ", ".join(f"{t.name}: {t}" for t in signature.inputs)
        return f"parc.Module({self._source.name}({inputs}) -> {', '.join(map(str, signature.results))})"


def _check_state(built: _Built, inputs: Sequence[Tensor]) -> None:
    """`CallError` where the model would now compute something else than what was compiled."""
    for part, training in built.modes:
        if part.training is not training:
            raise CallError(
                f"the program was compiled in {_mode(training)} mode and the model is now in {_mode(not training)} "
                "mode, where it computes something else: compile it again"
            )
    if (autocast := _autocast()) is not built.autocast:
        raise CallError(
            f"the program was compiled {_under(built.autocast)} and is called {_under(autocast)}: compile it there"
        )
    refuse_transforms(inputs)


def _autocast() -> torch.dtype | None:
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None


def _casting_to(autocast: torch.dtype | None) -> torch.autocast:
    """Autocast in this state, without its cache: that would hand copies of weights to an import, or its fakes back."""
    return torch.autocast("cpu", autocast, enabled=autocast is not None, cache_enabled=False)


def _under(autocast: torch.dtype | None) -> str:
    return f"under torch.autocast to {short_name(autocast)}" if autocast is not None else "without torch.autocast"


def _mode(training: bool) -> str:
    return "training" if training else "evaluation"
