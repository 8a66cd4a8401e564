"""parc compiles recurrent and other sequential-looking neural networks to code that runs in parallel."""

from typing import TYPE_CHECKING

from parc.errors import CallError, CompileError, DeviceError, LoadError, ParcError, SaveError

if TYPE_CHECKING:
    from parc.api import compile, explain
    from parc.deploy.load import load
    from parc.deploy.loaded import LoadedModule
    from parc.module import Module
    from parc.report import Report

__all__ = [
    "CallError",
    "CompileError",
    "DeviceError",
    "LoadError",
    "LoadedModule",
    "Module",
    "ParcError",
    "Report",
    "SaveError",
    "compile",
    "explain",
    "load",
]

_PLACES = {
    "LoadedModule": "parc.deploy.loaded",
    "Module": "parc.module",
    "Report": "parc.report",
    "compile": "parc.api",
    "explain": "parc.api",
    "load": "parc.deploy.load",
}


def __getattr__(name: str) -> object:
    # parc-opt works on IR without torch, which takes seconds to import, and saved programs run without the compiler.
    if name not in _PLACES:
        raise AttributeError(f"module 'parc' has no attribute '{name}'")
    import importlib

    return getattr(importlib.import_module(_PLACES[name]), name)
