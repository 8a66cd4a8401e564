"""Errors as a command-line tool reports them, and the `expected-error` comments that tests compare them with."""

import linecache
import re
from collections.abc import Sequence
from dataclasses import dataclass

from torch_mlir import ir

from parc.errors import source_line
from parc.pipelines import diagnostic_location

_PLACE = re.compile(r"(?P<file>[^\n]+?):(?P<line>\d+)(:(?P<column>\d+))?(: (?P<message>.*))?", re.DOTALL)
_EXPECTED = re.compile(r"expected-error\s*(@(?P<where>[+-]\d+|above|below|unknown))?\s*\{\{(?P<text>.*?)\}\}")


@dataclass(frozen=True)
class Diagnostic:
    """One error; `line` and `column` count from 1, and are 0 where unknown."""

    message: str
    file: str = ""
    line: int = 0
    column: int = 0
    notes: tuple["Diagnostic", ...] = ()

    def render(self, path: str, source: str = "", severity: str = "error") -> str:
        """As `file:line:col: error: message`, the line of the file, a caret, and the notes.

        `path` names the input and `source` is its text: MLIR calls what it was handed as text "-".
        """
        ours = self.file in ("-", "")
        where = ":".join([path if ours else self.file, *(str(n) for n in (self.line, self.column) if n)])
        # An importer's message about a whole file begins with its name too.
        text = [f"{where}: {severity}: {self.message.removeprefix(f'{path}: ')}"]
        lines = source.splitlines() if ours else linecache.getlines(self.file)
        notes = self.notes
        if 0 < self.line <= len(lines):
            text.append(f"  {lines[self.line - 1].rstrip()}")
            if self.column:
                text.append("  " + " " * (self.column - 1) + "^")
            notes = tuple(n for n in notes if not n.message.startswith("see current operation"))
        return "\n".join(text + [note.render(path, source, "note") for note in notes])


@dataclass(frozen=True)
class Expected:
    """An `expected-error` comment: an error on `line` (0: of unknown place) with `text` in its message."""

    line: int
    text: str
    written: int


def diagnostics(error: Exception) -> list[Diagnostic]:
    """What an exception reports; every one of MLIR's errors where it comes from there."""
    cause = error if isinstance(error, ir.MLIRError) else error.__cause__
    if isinstance(cause, ir.MLIRError) and cause.error_diagnostics:
        return [_from_mlir(d) for d in cause.error_diagnostics]
    match = _PLACE.fullmatch(str(error))
    if match and match["message"]:
        return [Diagnostic(match["message"], *_place(match))]
    return [Diagnostic(str(error) or type(error).__name__)]


def expectations(source: str) -> list[Expected]:
    """The `expected-error` comments of a text."""
    lines = source.splitlines()
    found: list[Expected] = []
    for number, line in enumerate(lines, 1):
        for match in _EXPECTED.finditer(line):
            found.append(Expected(_target(number, match["where"], lines), match["text"], number))
    return found


def mismatches(expected: Sequence[Expected], actual: Sequence[Diagnostic]) -> list[Diagnostic]:
    """One error for each diagnostic that was not expected, and for each expectation that did not come true."""
    missing, problems = list(expected), []
    for diagnostic in actual:
        match = next((e for e in missing if e.line == diagnostic.line and e.text in diagnostic.message), None)
        if match:
            missing.remove(match)
        else:
            message = f"unexpected error: {diagnostic.message}"
            problems.append(Diagnostic(message, diagnostic.file, diagnostic.line, diagnostic.column))
    problems += [Diagnostic(f'expected error "{e.text}" was not produced', "-", e.written) for e in missing]
    return problems


def _from_mlir(info: ir.DiagnosticInfo) -> Diagnostic:
    notes = tuple(_from_mlir(note) for note in info.notes)
    match = _PLACE.fullmatch(source_line(diagnostic_location(info)))
    return Diagnostic(info.message.strip(), *(_place(match) if match else ("", 0, 0)), notes)


def _place(match: re.Match[str]) -> tuple[str, int, int]:
    return match["file"], int(match["line"]), int(match["column"] or 0)


def _target(number: int, where: str | None, lines: Sequence[str]) -> int:
    """The line that a comment on line `number` speaks of; above and below skip other `expected-error` lines."""
    if where == "unknown":
        return 0
    if where in ("above", "below"):
        step = -1 if where == "above" else 1
        number += step
        while 0 < number <= len(lines) and _EXPECTED.search(lines[number - 1]):
            number += step
        return number
    return number + int(where or 0)
