"""The base of every pass in `passes/`: a dataclass whose fields are the pass's options."""

from dataclasses import fields
from typing import ClassVar

from torch_mlir import ir

from parc.errors import UsageError


class Pass:
    """A module-to-module rewrite; subclasses are dataclasses with typed options and defaults."""

    name: ClassVar[str]

    def run(self, module: ir.Module) -> None:
        """Rewrite `module` in place; raise `CompileError` when it cannot be done."""
        raise NotImplementedError

    @classmethod
    def summary(cls) -> str:
        """The first line of the docstring: what the pass does."""
        return (cls.__doc__ or "").strip().split("\n", 1)[0]

    @classmethod
    def options(cls) -> dict[str, tuple[type, object]]:
        """Option name -> (type, default)."""
        return {f.name: (f.type, f.default) for f in fields(cls)}  # type: ignore[arg-type, misc]

    @classmethod
    def from_text(cls, text: str) -> "Pass":
        """Build the pass from `key=value key=value`, as written in a pipeline's braces."""
        kinds, values = cls.options(), {}
        for item in text.split():
            key, _, value = item.partition("=")
            if key not in kinds:
                known = ", ".join(kinds) or "none"
                raise UsageError(f"pass {cls.name} has no option '{key}' (options: {known})")
            values[key] = _parse(kinds[key][0], value, f"{cls.name}: option {key}")
        return cls(**values)


def _parse(kind: object, value: str, where: str) -> object:
    if kind in (bool, "bool"):
        if value.lower() not in ("true", "false", "1", "0", ""):
            raise UsageError(f"{where} takes true or false, not '{value}'")
        return value.lower() in ("true", "1", "")
    if kind in (int, "int"):
        try:
            return int(value)
        except ValueError:
            raise UsageError(f"{where} takes an integer, not '{value}'") from None
    if kind in (float, "float"):
        try:
            return float(value)
        except ValueError:
            raise UsageError(f"{where} takes a number, not '{value}'") from None
    return value
