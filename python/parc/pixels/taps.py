"""What an operation sees of the image from one pixel of its result."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch_mlir import ir

from parc.errors import CompileError
from parc.pixels.dims import Dims
from parc.pixels.nonzero import Nonzero
from parc.pixels.structure import Structured

Place = tuple[int, int]
"""`(factor, start)`: seen from a row (or column) i it is at `factor * i + start`."""
HERE: tuple[Place, Place] = ((1, 0), (1, 0))


@dataclass(frozen=True)
class Tap:
    """One step of a window over the image; an operation without a window has a single one."""

    loops: Mapping[int, int] = field(default_factory=dict)
    """The values of the window's loops."""
    places: Mapping[int, tuple[Place, Place]] = field(default_factory=dict)
    """Operand number -> the row and column that are seen of it."""


class Taps:
    """The taps of operations; those of convolutions whose weights are all zero are left out."""

    def __init__(self, dims: Dims, nonzero: Nonzero) -> None:
        self._dims = dims
        self._nonzero = nonzero
        self._found: dict[ir.Operation, list[Tap]] = {}

    def of(self, op: ir.Operation) -> list[Tap]:
        """The taps of an operation on the image, in the order of its loops."""
        if op not in self._found:
            self._found[op] = self._new(op)
        return self._found[op]

    def _new(self, op: ir.Operation) -> list[Tap]:
        seen = [n for n, v in enumerate(op.operands) if self._dims.depends(v)]
        structured = self._dims.structured(op)
        if structured is None:
            return [Tap({}, dict.fromkeys(seen, HERE))]
        window = structured.window(seen, [self._dims.pixels(op.operands[n]) for n in seen])
        loops = structured.loops_of(self._dims.pixels(op.results[0]))
        found = []
        for values in structured.taps(window):
            if structured.is_sum_of_products and not self._counts(structured, values):
                continue
            places = {}
            for n in seen:
                rows, columns = (structured.indices[n][d].at(values) for d in self._dims.pixels(op.operands[n]))
                if list(rows.terms) != [loops[0]] or list(columns.terms) != [loops[1]]:
                    raise CompileError(f"'{op.name}' moves rows of the image to other than rows", op.location)
                places[n] = (rows.terms[loops[0]], rows.constant), (columns.terms[loops[1]], columns.constant)
            found.append(Tap(values, places))
        return found

    def _counts(self, structured: Structured, values: Mapping[int, int]) -> bool:
        """Does a tap of a convolution have weights other than zero?"""
        for operand, index in zip(structured.op.operands, structured.indices, strict=True):
            at = [next((values[d] for d in values if place.is_loop(d)), None) for place in index]
            if not self._dims.depends(operand) and any(a is not None for a in at):
                pattern = self._nonzero.of(operand)
                if not pattern[tuple(slice(None) if a is None else a for a in at)].any():
                    return False
        return True
