"""Object files become code in memory, without a compiler: llvmlite's ORC linker loads them.

It is the linker that MLIR's execution engine uses, too, so the code is the same to the byte.  (llvmlite's older one, of
`create_mcjit_compiler`, ends the process when a symbol is missing.)
"""

from collections.abc import Sequence

from parc.errors import LoadError
from parc.runtime.host import Host
from parc.runtime.llvm import load_llvm
from parc.runtime.team import library_path


class ObjectCode:
    """The code of an object file that the execution engine or `portable_code` (`jit.py`) made."""

    def __init__(self, code: bytes, entry_points: Sequence[str], host: Host) -> None:
        """Code for `host`. LoadError when it is damaged, or calls functions that this process does not have."""
        self.host = host
        self._code = code
        # Code finds what it calls in the process: there the native runtime's functions are like those of libm then.
        load_llvm().load_library_permanently(str(library_path()))
        builder = load_llvm().JITLibraryBuilder().add_object_img(code).add_current_process()
        for name in entry_points:
            builder.export_symbol(packed_name(name))
        try:
            # The functions are there for as long as the library is.
            self._library = builder.link(load_llvm().create_lljit_compiler(), "program")
        except RuntimeError as e:
            raise LoadError(f"the program's code cannot be loaded: {e}") from None

    def address(self, name: str) -> int:
        """Where the entry point of this name is, which takes packed arguments."""
        return int(self._library[packed_name(name)])

    def object_code(self) -> bytes:
        """The object file."""
        return self._code


def packed_name(name: str) -> str:
    """What MLIR calls the function that takes a pointer to each argument of this one."""
    return f"_mlir_{name}"
