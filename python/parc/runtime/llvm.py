"""LLVM as llvmlite has it: the part of a compiler that the runtime needs, to load object code."""

from functools import cache
from types import ModuleType

from parc.errors import ParcError


@cache
def load_llvm() -> ModuleType:
    """`llvmlite.binding`, ready for code of this machine; ParcError when it is not installed."""
    try:
        import llvmlite.binding as binding
    except ImportError as e:
        raise ParcError(f"saved programs and programs for GPUs need llvmlite: pip install llvmlite ({e})") from None
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    module: ModuleType = binding
    return module
