"""What parc raises: one exception type, with the place that the user has to look at."""

from torch_mlir import ir


class ParcError(Exception):
    """Base of every error that parc raises on purpose."""


class CompileError(ParcError):
    """The model or IR cannot be compiled; the message starts with `file:line` where one is known."""

    def __init__(self, message: str, location: ir.Location | str | None = None) -> None:
        where = location if isinstance(location, str) else source_line(location)
        super().__init__(f"{where}: {message}" if where else message)


class CallError(ParcError, ValueError):
    """A compiled program was called with arguments that it does not take."""


class UsageError(ParcError, ValueError):
    """A pass, an option or a pipeline that does not exist or is not written well."""


def source_line(location: ir.Location | None) -> str:
    """The first `file:line[:column]` in a location, or an empty string."""
    if location is None:
        return ""
    if isinstance(location, ir.FileLineColLoc):
        return f"{location.filename}:{location.start_line}:{location.start_col}"
    if isinstance(location, ir.NameLoc):
        return source_line(location.child_loc)
    if isinstance(location, ir.CallSiteLoc):
        return source_line(location.callee) or source_line(location.caller)
    if isinstance(location, ir.FusedLoc):
        return next((s for s in map(source_line, location.locations) if s), "")
    return ""
