"""Can threads share the rows of a whole system, each with rows of its own?

An equation that is a cell (`codegen.cell`) computes its rows apart from each other; any other one is run by a single
thread, with barriers around it.  So rows stay with their thread where cells read each other's tiles row by row.
"""

from collections.abc import Mapping

from torch_mlir import ir

from parc.codegen.analysis import analyse_cell
from parc.codegen.cell import Cell
from parc.poly.model import System

Cells = Mapping[str, Cell | None]


def find_cells(system: System) -> Cells:
    """The cell of each equation, by name; None for an equation that is none."""
    return {e.name: analyse_cell(e.op) for e in system.equations}


def mixed_rows(system: System, cells: Cells) -> tuple[str, ir.Location] | None:
    """Why some row of a cell needs other rows of an unknown's tile, and where; None when none does."""
    unknowns = {unknown.op.results[0]: unknown for unknown in system.unknowns}
    found: tuple[str, ...] | None = None
    for equation in system.equations:
        cell = cells[equation.name]
        for operand in cell.operands if cell is not None else ():
            if operand.array not in unknowns or operand.access is None:
                continue
            unknown, where = unknowns[operand.array], equation.op.location
            if operand.kind not in ("read", "write") or operand.repeat != 1:
                return f"all rows of {equation.name} read the same of {unknown.name}", where
            extents = unknown.op.attributes["shape"].value.results[len(operand.access.results) : -1]
            rows = tuple(str(extent) for extent in extents)
            if found not in (None, rows):
                return (
                    f"tiles of {unknown.name} have rows ({', '.join(rows)}), others ({', '.join(found or ())})",
                    where,
                )
            found = rows
    return None
