"""Products on tensor cores: `mma.sync` of 16 rows, 8 columns and 32 bytes of depth, with sums in f32.

A lane, with `t = lane mod 4` and `g = lane / 4`, holds of the left factor rows g and g + 8, of the right one column g,
and of the sums columns 2t and 2t + 1 (PTX ISA, "Matrix Fragments for mma.m16n8k8 / m16n8k16").  In which order k comes
is free as long as both factors agree: here a lane has `depth / 4` neighbours in k, eight bytes, in one load.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch_mlir import ir
from torch_mlir.dialects import arith, nvgpu, vector

ROWS, COLUMNS = 16, 8
_LANE_BYTES = 8


@dataclass(frozen=True)
class TensorCore:
    """One form of the instruction: the type that factors have in memory, and how they are rounded to it."""

    name: str

    @property
    def bytes(self) -> int:
        """Of a factor in memory."""
        return 4 if self.name == "tf32" else 2

    @property
    def depth(self) -> int:
        """Terms that one instruction adds to each sum."""
        return 4 * self.lane_terms

    @property
    def lane_terms(self) -> int:
        """Neighbours in k that a lane loads at once."""
        return _LANE_BYTES // self.bytes

    @property
    def element(self) -> ir.Type:
        """Of factors in memory."""
        return {"tf32": ir.F32Type, "bf16": ir.BF16Type, "f16": ir.F16Type}[self.name].get()

    def round(self, value: ir.Value) -> ir.Value:
        """An f32 as the nearest factor; ties go to the even one."""
        if self.name != "tf32":
            return arith.truncf(self.element, value)
        i32 = ir.IntegerType.get_signless(32)
        bits = arith.bitcast(i32, value)
        odd = arith.andi(arith.shrui(bits, _int(13)), _int(1))
        rounded = arith.andi(arith.addi(bits, arith.addi(odd, _int(0x0FFF))), _int(~0x1FFF))
        # The sum could carry a NaN's bits away.
        number = arith.cmpf(arith.CmpFPredicate.ORD, value, value)
        return arith.bitcast(ir.F32Type.get(), arith.select(number, rounded, bits))

    def multiply(self, left: Sequence[ir.Value], right: ir.Value, sums: ir.Value) -> ir.Value:
        """`sums` (2x2) plus the products of a lane's terms of rows g and g + 8 with those of its column."""
        upper, lower = left
        half = self.lane_terms // 2
        pairs = [(upper, 0), (lower, 0), (upper, 1), (lower, 1)]
        a = self._fragment([vector.extract(v, [], [half * p + i]) for v, p in pairs for i in range(half)], 4, half)
        b = self._fragment([vector.extract(right, [], [i]) for i in range(2 * half)], 2, half)
        shape = [ROWS, COLUMNS, self.depth]
        return nvgpu.MmaSyncOp(sums.type, a, b, sums, shape, tf32Enabled=self.name == "tf32" or None).result

    def _fragment(self, elements: Sequence[ir.Value], count: int, width: int) -> ir.Value:
        return vector.from_elements(ir.VectorType.get([count, width], self.element), list(elements))


CORES = {name: TensorCore(name) for name in ("tf32", "bf16", "f16")}


def _int(value: int) -> ir.Value:
    return arith.constant(ir.IntegerType.get_signless(32), value)
