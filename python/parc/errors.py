"""What parc raises: one exception type, with the place that the user has to look at."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # programs that were saved run without MLIR
    from torch_mlir import ir


class ParcError(Exception):
    """Base of every error that parc raises on purpose."""


class CompileError(ParcError):
    """The model or IR cannot be compiled; the message starts with `file:line` where one is known."""

    def __init__(self, message: str, location: "ir.Location | str | None" = None) -> None:
        where = location if isinstance(location, str) else source_line(location)
        super().__init__(f"{where}: {message}" if where else message)


class CallError(ParcError, ValueError):
    """A compiled program was called with arguments that it does not take."""


class EmulationError(ParcError):
    """A kernel did on the emulated GPU what is wrong on any: the message names the operations and the threads."""


class UsageError(ParcError, ValueError):
    """A pass, an option or a pipeline that does not exist or is not written well."""


class SaveError(ParcError):
    """A compiled program that cannot be written to a file."""


class LoadError(ParcError):
    """A file that is no saved program, or is damaged, or whose program does not run on this machine."""


class DeviceError(ParcError):
    """No device that a program could run on, or a failure of the device while it ran."""


def source_line(location: "ir.Location | None") -> str:
    """The first `file:line[:column]` in a location, or an empty string."""
    if location is None:
        return ""
    from torch_mlir import ir

    if isinstance(location, ir.FileLineColLoc):
        return f"{location.filename}:{location.start_line}:{location.start_col}"
    if isinstance(location, ir.NameLoc):
        return source_line(location.child_loc)
    if isinstance(location, ir.CallSiteLoc):
        return source_line(location.callee) or source_line(location.caller)
    if isinstance(location, ir.FusedLoc):
        return next((s for s in map(source_line, location.locations) if s), "")
    return ""
