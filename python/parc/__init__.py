"""parc compiles recurrent and other sequential-looking neural networks to code that runs in parallel."""

from typing import TYPE_CHECKING

from parc.errors import CallError, CompileError, ParcError

if TYPE_CHECKING:
    from parc.api import compile, explain
    from parc.module import Module
    from parc.report import Report

__all__ = ["CallError", "CompileError", "Module", "ParcError", "Report", "compile", "explain"]

_PLACES = {"compile": "parc.api", "explain": "parc.api", "Module": "parc.module", "Report": "parc.report"}


def __getattr__(name: str) -> object:
    # parc-opt works on IR without torch, which takes seconds to import.
    if name not in _PLACES:
        raise AttributeError(f"module 'parc' has no attribute '{name}'")
    import importlib

    return getattr(importlib.import_module(_PLACES[name]), name)
