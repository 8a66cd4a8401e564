"""The inner loops of all products: rows x panels of sums in registers, one pass through k.

A micro-kernel `@product_<type>_<rows>x<panels>` adds `a[row, k] * w[k, column]` for all k to a scratch tile.  It takes
k one after the other and has no other order of additions in any size: a sum does not depend on which one computed it.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path

from torch_mlir import ir
from torch_mlir.dialects import arith, func, memref, scf, vector

PANEL_VECTORS = 2  # of f32 on AVX2: one cache line
SUMS_IN_FLIGHT = 8  # vectors of sums that hide the latency of fused multiply-adds

PREFETCH_STEPS = 16  # how many k ahead a panel is fetched from the second-level cache or beyond


@dataclass(frozen=True)
class VectorTarget:
    """The vector unit that code is emitted for: the width and number of its registers."""

    bits: int = 128
    registers: int = 16

    @staticmethod
    def host() -> "VectorTarget":
        """The vector unit of this machine as Linux describes it; 128 bits and 16 registers where it does not."""
        try:
            lines = Path("/proc/cpuinfo").read_text().splitlines()
        except OSError:
            return VectorTarget()
        flags = {flag for line in lines if line.startswith(("flags", "Features")) for flag in line.split()}
        if {"avx512f", "avx512vl"} <= flags:
            return VectorTarget(512, 32)
        if {"avx2", "fma"} <= flags:
            return VectorTarget(256, 16)
        return VectorTarget(128, 32) if "asimd" in flags else VectorTarget()

    def lanes(self, element: ir.Type) -> int:
        """Elements of one vector."""
        return self.bits // element.width

    @property
    def row_block(self) -> int:
        """Rows of the largest micro-kernel; a quarter of the registers is left to factors."""
        return self.registers * 3 // 4 // PANEL_VECTORS

    def panels(self, rows: int) -> int:
        """Panels that a micro-kernel for so many rows takes at a time."""
        return max(1, min(SUMS_IN_FLIGHT // PANEL_VECTORS, self.row_block // rows))


@dataclass(frozen=True)
class MicroKernel:
    """Sums of `rows` rows and `panels` panels of two vectors of `lanes` elements."""

    element: ir.Type
    lanes: int
    rows: int
    panels: int

    @property
    def name(self) -> str:
        """The symbol in the module."""
        return f"product_{self.element}_{self.rows}x{self.panels}"

    @property
    def width(self) -> int:
        """Elements of a row of a panel."""
        return PANEL_VECTORS * self.lanes

    def emit(self) -> None:
        """Add the function at the insertion point, a module's body.

        It takes `%a, %a0, %a_row`: the left factor, its first element and row stride; `%w, %w0, %w_panel`: packed
        panels; `%depth, %count`: how many k, and how many times `panels` panels; `%s, %s0, %s_row`: the sums.
        """
        index = ir.IndexType.get()
        flat = ir.MemRefType.get([ir.ShapedType.get_dynamic_size()], self.element)
        types = [flat, index, index, flat, index, index, index, index, flat, index, index]
        function = func.FuncOp(self.name, ir.FunctionType.get(types, []), visibility="private")
        # Inlined, these loops would be there once per kernel and number of rows.
        function.attributes["llvm.no_inline"] = ir.UnitAttr.get()
        function.attributes["llvm.linkage"] = ir.Attribute.parse("#llvm.linkage<internal>")
        with ir.InsertionPoint(function.add_entry_block()):
            a, a0, a_row, w, w0, w_panel, depth, count, s, s0, s_row = function.arguments
            with loop(constant(0), count, constant(1)) as i:
                first = arith.muli(i, constant(self.panels))
                panels = [arith.addi(first, constant(p)) for p in range(self.panels)]
                weights = [arith.addi(w0, arith.muli(p, w_panel)) for p in panels]
                sums = [arith.addi(s0, arith.muli(p, constant(self.width))) for p in panels]
                rows = [arith.addi(a0, arith.muli(constant(r), a_row)) for r in range(self.rows)]
                places = [
                    arith.addi(arith.addi(column, arith.muli(constant(r), s_row)), constant(v * self.lanes))
                    for r in range(self.rows)
                    for column in sums
                    for v in range(PANEL_VECTORS)
                ]
                starts = [vector.load(self._vector, s, [place]) for place in places]
                for place, total in zip(places, self._reduce(a, rows, w, weights, depth, starts), strict=True):
                    vector.store(total, s, [place])
            func.ReturnOp([])

    @property
    def _vector(self) -> ir.VectorType:
        return ir.VectorType.get([self.lanes], self.element)

    def _reduce(
        self,
        a: ir.Value,
        rows: Sequence[ir.Value],
        w: ir.Value,
        weights: Sequence[ir.Value],
        depth: ir.Value,
        starts: Sequence[ir.Value],
    ) -> Sequence[ir.Value]:
        """`starts` plus the products over all k."""
        steps = scf.ForOp(constant(0), depth, constant(1), list(starts))
        with ir.InsertionPoint(steps.body):
            k = steps.induction_variable
            places = [arith.addi(panel, arith.muli(k, constant(self.width))) for panel in weights]
            if self.rows > 1:
                # One row alone keeps the hardware's own prefetching busy.
                for place in places:
                    ahead = arith.addi(place, constant(PREFETCH_STEPS * self.width))
                    memref.prefetch(w, [ahead], False, 3, True)
            columns = [(place, v * self.lanes) for place in places for v in range(PANEL_VECTORS)]
            left = cache(lambda r: vector.broadcast(self._vector, memref.load(a, [arith.addi(rows[r], k)])))
            right = cache(lambda c: vector.load(self._vector, w, [arith.addi(columns[c][0], constant(columns[c][1]))]))
            # The factors of the shorter side stay in registers, those of the longer one pass through.
            order = list(product(range(len(rows)), range(len(columns))))
            order.sort(key=lambda pair: pair[1] if len(rows) < len(columns) else pair[0])
            totals = list(steps.inner_iter_args)
            for r, c in order:
                number = r * len(columns) + c
                totals[number] = vector.fma(left(r), right(c), totals[number])
            scf.YieldOp(totals)
        return list(steps.results_)


def constant(value: int) -> ir.Value:
    """An index constant at the insertion point."""
    return arith.constant(ir.IndexType.get(), value)


@contextmanager
def loop(start: ir.Value, stop: ir.Value, step: ir.Value) -> Iterator[ir.Value]:
    """A loop without carried values; what is emitted in the `with` is its body."""
    op = scf.ForOp(start, stop, step)
    with ir.InsertionPoint(op.body):
        yield op.induction_variable
        scf.YieldOp([])
