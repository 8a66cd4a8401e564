"""`parc.Module`: the compiled stand-in of a model."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch_mlir import ir

from parc import dialect
from parc.compiled import Compiled
from parc.compiler import Options, compile_imported
from parc.errors import CallError
from parc.importers import Imported, import_model, import_path
from parc.importers.imported import Structure
from parc.report import Report, explain_module

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

    def load(self, args: Sequence[object], kwargs: Mapping[str, object], context: ir.Context) -> Imported:
        """Import it with the arguments of one call."""
        dialect.load(context)
        if isinstance(self.model, str | os.PathLike):
            return import_path(self.model, context, args=args, kwargs=kwargs, dynamic_shapes=self.dynamic_shapes)
        return import_model(self.model, args, kwargs, context, dynamic_shapes=self.dynamic_shapes)


@dataclass(frozen=True)
class _Built:
    """What a compile leaves behind."""

    program: Compiled
    structure: Structure
    scheduled: ir.Module
    modes: tuple[tuple[nn.Module, bool], ...]
    """The parts of the original and whether they were training, where that matters."""


class Module(nn.Module):
    """A compiled model: called as the original, with the original's parameters and buffers, by the same names.

    Weights that change in the original or here (`load_state_dict`, an optimizer's step, another tensor assigned) are
    used at the next call; only writes through `.data` or numpy pass unseen, since torch does not count them.  Calls
    raise `CallError` for arguments that do not fit.
    """

    def __init__(self, source: Source, options: Options) -> None:
        super().__init__()
        # The original is no submodule, which would put a name in front of all of its.
        self.__dict__.update(_source=source, _options=options, _built=None, _original=None)
        if isinstance(source.model, nn.Module) and not isinstance(source.model, torch.jit.ScriptModule):
            self._share(source.model)

    def forward(self, *args: object, **kwargs: object) -> Any:
        """Call the compiled program; compiles it first if that has not happened."""
        built = self._built if self._built is not None else self.build(*args, **kwargs)
        inputs = built.structure.flatten(args, kwargs)
        for part, training in built.modes:
            if part.training is not training:
                raise CallError(
                    f"the program was compiled in {_mode(training)} mode and the model is now in {_mode(not training)} "
                    "mode, where it computes something else: compile it again"
                )
        results = built.program(inputs)
        if torch.is_grad_enabled() and (built.program.parameters.requires_grad or any(t.requires_grad for t in inputs)):
            sources = [t for t in (*inputs, *built.program.parameters.tensors) if t.requires_grad]
            results = _Ended.apply(results, *sources)
        return built.structure.pack(results)

    def build(self, *args: object, **kwargs: object) -> _Built:
        """Compile for calls like this one; CompileError when it cannot be done."""
        imported = self._source.load(args, kwargs, ir.Context())
        owner = imported.owner or _container(imported.parameters)
        self._share(owner)
        program, scheduled = compile_imported(replace(imported, owner=owner), self._options, self._source.name)
        parts = owner.modules() if imported.mode_matters else ()
        built = _Built(program, imported.structure, scheduled, tuple((p, p.training) for p in parts))
        self.__dict__["_built"] = built
        return built

    def explain(self, sizes: Mapping[str, int] | None = None) -> Report:
        """Report on the equations, dependences and schedule; `sizes` gives values of the symbols for its numbers."""
        if self._built is None:
            raise CallError("not compiled yet: call it once, or give parc.compile example inputs")
        return explain_module(self._built.scheduled, sizes)

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
        signature = self._built.program.signature
        inputs = ", ".join(f"{t.name}: {t}" for t in signature.inputs)
        return f"parc.Module({self._source.name}({inputs}) -> {', '.join(map(str, signature.results))})"


class _Ended(torch.autograd.Function):
    """Marks results as depending on tensors that require a gradient, without giving one."""

    @staticmethod
    def forward(ctx: Any, results: Sequence[Tensor], *sources: Tensor) -> tuple[Tensor, ...]:
        return tuple(results)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> None:
        raise CallError(
            "training through a compiled module is not supported yet: call it under torch.no_grad(), and the original "
            "module to train"
        )


def _mode(training: bool) -> str:
    return "training" if training else "evaluation"


def _container(parameters: Mapping[str, Tensor]) -> nn.Module:
    """A module that holds tensors under their dotted names, as buffers."""
    root = nn.Module()
    for name, tensor in parameters.items():
        *path, last = name.split(".")
        place = root
        for part in path:
            if part not in place._modules:
                place.add_module(part, nn.Module())
            place = place.get_submodule(part)
        place.register_buffer(last, tensor)
    return root
