"""parc compiles recurrent and other sequential-looking neural networks to code that runs in parallel."""

from typing import TYPE_CHECKING

from parc.errors import CallError, CompileError, DeviceError, LoadError, ParcError, SaveError

if TYPE_CHECKING:
    from parc.api import compile, explain
    from parc.deploy.load import load
    from parc.deploy.loaded import LoadedModule
    from parc.fixed_points import FixedPoint, fixed_point
    from parc.iteration import Iteration
    from parc.module import Module
    from parc.report import Report

__all__ = [
    "CallError",
    "CompileError",
    "DeviceError",
    "FixedPoint",
    "Iteration",
    "LoadError",
    "LoadedModule",
    "Module",
    "ParcError",
    "Report",
    "SaveError",
    "compile",
    "explain",
    "fixed_point",
    "load",
]

_PLACES = {
    "FixedPoint": "parc.fixed_points",
    "Iteration": "parc.iteration",
    "LoadedModule": "parc.deploy.loaded",
    "Module": "parc.module",
    "Report": "parc.report",
    "compile": "parc.api",
    "explain": "parc.api",
    "fixed_point": "parc.fixed_points",
    "load": "parc.deploy.load",
}


def __getattr__(name: str) -> object:
    # parc-opt works on IR without torch, which takes seconds to import, and saved programs run without the compiler.
    if name not in _PLACES:
        raise AttributeError(f"module 'parc' has no attribute '{name}'")
    import importlib

    return getattr(importlib.import_module(_PLACES[name]), name)
