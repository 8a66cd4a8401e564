"""Finds the importer for what the user gives: a module, a function, an exported program, or a path."""

import importlib.util
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FunctionType

import torch
from torch import nn
from torch_mlir import ir

from parc.errors import CompileError
from parc.importers.imported import Imported

_SUFFIXES = (".onnx", ".pt2", ".mlir", ".mlirbc")


def import_model(
    model: nn.Module | Callable[..., object] | torch.export.ExportedProgram,
    args: Sequence[object],
    kwargs: Mapping[str, object],
    context: ir.Context,
    *,
    dynamic_shapes: object = None,
    stage: str = "linalg",
) -> Imported:
    """Import what is in memory, with one example call; CompileError for what cannot be compiled.

    An exported program keeps the sizes static that were so when it was exported.
    """
    from parc.importers.torch_import import import_torch  # only now: model files do without it

    if isinstance(model, torch.export.ExportedProgram):
        if not args and not kwargs:
            args, kwargs = model.example_inputs or ((), {})
        model = model.module()
    if not callable(model):
        raise CompileError(
            f"{type(model).__name__} is no kind of model: give an nn.Module, a function, an ExportedProgram or a path"
        )
    return import_torch(model, args, kwargs, context, dynamic_shapes=dynamic_shapes, stage=stage)


def import_path(
    path: str | os.PathLike[str],
    context: ir.Context,
    *,
    args: Sequence[object] = (),
    kwargs: Mapping[str, object] | None = None,
    dynamic_shapes: object = None,
    stage: str = "linalg",
) -> Imported:
    """Import a file: `.onnx`, `.pt2`, `.mlir`, `.mlirbc`, or `file.py:function`.

    The function takes no arguments and returns the model, or (model, example inputs).  With `stage` "torch" the
    module is left in the torch dialect.  CompileError for a file that cannot be read as what its name says.
    """
    text = os.fspath(path)
    suffix = Path(text).suffix
    source, colon, name = text.rpartition(":")
    if colon and source.endswith(".py"):
        model, example = _model_of(_call(_load_function(source, name)))
        return import_model(
            model, tuple(args) or example, kwargs or {}, context, dynamic_shapes=dynamic_shapes, stage=stage
        )
    if suffix not in _SUFFIXES:
        raise CompileError(f"cannot tell what {text} is: expected {', '.join(_SUFFIXES)} or file.py:function")
    if not Path(text).is_file():
        raise CompileError(f"there is no file {text}")
    if suffix == ".pt2":
        from parc.importers.torch_model import load_exported

        return import_model(
            load_exported(text), args, kwargs or {}, context, dynamic_shapes=dynamic_shapes, stage=stage
        )
    if dynamic_shapes is not None:
        raise CompileError(f"dynamic_shapes is for torch programs; {text} says itself which of its sizes vary")
    if suffix == ".onnx":
        from parc.importers.onnx_model import import_onnx

        return import_onnx(text, context, stage=stage)
    from parc.importers.mlir_file import import_mlir

    return import_mlir(text, context)


def _load_function(path: str, name: str) -> Callable[[], object]:
    if not Path(path).is_file():
        raise CompileError(f"there is no file {path}")
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(spec.name, module)  # dataclasses and pickle look their module up
    sys.path.insert(0, str(Path(path).resolve().parent))
    try:
        spec.loader.exec_module(module)
    except Exception as e:
        raise CompileError(f"{type(e).__name__} while {path} was imported: {e}") from e
    finally:
        sys.path.pop(0)
    function = getattr(module, name, None)
    if not callable(function):
        raise CompileError(f"{path} has no function '{name}'")
    return function


def _call(function: Callable[[], object]) -> object:
    """What a user's function returns; CompileError with its own line when it raises."""
    try:
        return function()
    except Exception as e:
        file = function.__code__.co_filename if isinstance(function, FunctionType) else ""
        lines = [frame.lineno for frame in traceback.extract_tb(e.__traceback__) if frame.filename == file]
        raise CompileError(f"{type(e).__name__}: {e}", f"{file}:{lines[-1]}" if lines else None) from e


def _model_of(value: object) -> tuple[Callable[..., object], tuple[object, ...]]:
    """The (model, example inputs) that a user's function returned."""
    model, example = value if isinstance(value, tuple) and len(value) == 2 else (value, ())
    if not callable(model):
        raise CompileError(
            f"expected a model, or (model, example inputs); the function returned {type(value).__name__}"
        )
    return model, tuple(example) if isinstance(example, tuple | list) else (example,)
