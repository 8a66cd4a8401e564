"""Which iteration dimension of a linalg operation on buffers is the lanes of vectors.

It is a dimension that every operand either walks element by element or does not move along: a parallel one, and the
lanes are elements of each result, or a reduction, and they are parts of its sum.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from torch_mlir import ir
from torch_mlir.dialects import arith, linalg

from parc.codegen.arrays import slope
from parc.codegen.irtools import captured_values
from parc.codegen.microkernel import PANEL_VECTORS, VectorTarget

# Narrower strips are not worth a vector.
_LEAST_EXTENT = 4
# Lanes behind the end of a masked strip may divide by zero; powers of integers have one exponent for all lanes.
_SCALAR_ONLY = ("divsi", "divui", "remsi", "remui", "ceildivsi", "ceildivui", "floordivsi", "fpowi")
# Operations that combine the lanes of one vector: the kind's name, and the value that changes nothing.
_COMBINE: dict[str, tuple[str, Callable[[ir.Type], float | int]]] = {
    "arith.addf": ("add", lambda _: -0.0),
    "arith.mulf": ("mul", lambda _: 1.0),
    "arith.maximumf": ("maximumf", lambda _: float("-inf")),
    "arith.minimumf": ("minimumf", lambda _: float("inf")),
    "arith.addi": ("add", lambda _: 0),
    "arith.muli": ("mul", lambda _: 1),
    "arith.andi": ("and", lambda _: -1),
    "arith.ori": ("or", lambda _: 0),
    "arith.xori": ("xor", lambda _: 0),
    "arith.maxsi": ("maxsi", lambda t: -(1 << (t.width - 1))),
    "arith.minsi": ("minsi", lambda t: (1 << (t.width - 1)) - 1),
}


@dataclass
class Lanes:
    """A linalg operation with its lane dimension chosen."""

    op: linalg.GenericOp
    maps: list[ir.AffineMap]
    parallel: list[bool]  # by iteration dimension
    lane: int
    width: int = 1
    extent: int | None = None  # of the lane dimension, where static
    varying: set[ir.Value] = field(default_factory=set)  # values of the body that differ between lanes

    @property
    def reduces(self) -> bool:
        """Whether the lanes are summed up."""
        return not self.parallel[self.lane]

    @property
    def block(self) -> ir.Block:
        return self.op.regions[0].blocks[0]

    @property
    def operands(self) -> list[ir.Value]:
        return list(self.op.operation.operands)

    @property
    def input_count(self) -> int:
        return len(self.op.inputs)

    @property
    def body(self) -> list[ir.Operation]:
        """The operations of the body without the yield."""
        return [o.operation for o in self.block.operations][:-1]

    @property
    def yielded(self) -> list[ir.Value]:
        return list(list(self.block.operations)[-1].operation.operands)

    def walks(self, operand: int) -> bool | None:
        """Whether an operand's element moves with the lane; None if it does so other than element by element."""
        slopes = [slope(e, self.lane) for e in self.maps[operand].results]
        if not any(s != 0 for s in slopes):
            return False
        type_ = self.operands[operand].type
        unit = slopes[-1] == 1 and not any(s != 0 for s in slopes[:-1])
        return True if unit and contiguous(type_) else None

    def static_extent(self, dim: int) -> int | None:
        """The extent of an iteration dimension, where it is known."""
        for value, map_ in zip(self.operands, self.maps, strict=True):
            for d, expr in enumerate(map_.results):
                if isinstance(expr, ir.AffineDimExpr) and expr.position == dim and not value.type.is_dynamic_dim(d):
                    return value.type.get_dim_size(d)
        return None

    def dimension_of(self, dim: int) -> tuple[ir.Value, int] | None:
        """An operand and its dimension that has the extent of an iteration dimension."""
        for value, map_ in zip(self.operands, self.maps, strict=True):
            for d, expr in enumerate(map_.results):
                if isinstance(expr, ir.AffineDimExpr) and expr.position == dim:
                    return value, d
        return None


def contiguous(type_: ir.Type) -> bool:
    """Whether neighbours in the last dimension are neighbours in memory, of a type that vectors are loaded of."""
    strides, _ = ir.MemRefType(type_).get_strides_and_offset()
    # A vector of i1 is packed in memory; LLVM calls its runtime library to load some lanes of bf16.
    return strides[-1] == 1 and str(type_.element_type) not in ("i1", "bf16")


def find_lanes(op: linalg.GenericOp, target: VectorTarget) -> Lanes | None:
    """The operation with lanes; None where no dimension can be one."""
    maps = [ir.AffineMapAttr(a).value for a in op.indexing_maps]
    parallel = ["parallel" in str(a) for a in op.iterator_types]
    inputs = len(op.inputs)
    if inputs == len(maps):
        return None  # no result is left, only assertions
    # Only the last dimension of a result can be walked by all results, and that of an input by sums.
    for map_ in (maps[inputs], *maps[:inputs]):
        last = map_.results[-1] if len(map_.results) else None
        for dim in range(map_.n_dims):
            if last is not None and slope(last, dim) == 1:
                lanes = Lanes(op, maps, parallel, dim)
                if _fits(lanes, target):
                    return lanes
    return None


def _fits(lanes: Lanes, target: VectorTarget) -> bool:
    """Whether the dimension can be the lanes; completes what is known of them."""
    if any(lanes.dimension_of(d) is None for d in range(lanes.maps[0].n_dims)):
        return False
    walks = [lanes.walks(i) for i in range(len(lanes.operands))]
    results = walks[lanes.input_count :]
    if None in walks or any(w == lanes.reduces for w in results) or not _analyse_body(lanes, walks):
        return False
    if lanes.reduces and not all(find_combiner(lanes, i) for i in range(len(results))):
        return False
    elements = [v.type.element_type for v, w in zip(lanes.operands, walks, strict=True) if w]
    widest = max(e.width if hasattr(e, "width") else 64 for e in elements)
    lanes.width = PANEL_VECTORS * target.bits // widest
    lanes.extent = lanes.static_extent(lanes.lane)
    if lanes.extent is not None:
        while lanes.width // 2 >= lanes.extent:
            lanes.width //= 2
    return lanes.extent is None or lanes.extent >= _LEAST_EXTENT


def _analyse_body(lanes: Lanes, walks: Sequence[bool | None]) -> bool:
    """Find the values that vary; False if one is computed by what has no vector form."""
    arguments = list(lanes.block.arguments)
    varying = {a for a, w in zip(arguments, walks, strict=True) if w}
    if lanes.reduces:
        varying.update(arguments[lanes.input_count :])
    lane_index: set[ir.Value] = set()
    for op in lanes.body:
        if op.name == "linalg.index":
            if ir.IntegerAttr(op.attributes["dim"]).value == lanes.lane:
                varying.add(op.results[0])
                lane_index.add(op.results[0])
            continue
        inputs = captured_values(op)
        if not any(v in varying for v in inputs):
            continue
        if op.name == "memref.load":
            *leading, last = op.operands
            if last not in lane_index or any(v in varying for v in leading) or not contiguous(op.operands[0].type):
                return False
        elif not _has_vector_form(op):
            return False
        varying.update(op.results)
    lanes.varying = varying
    return True


def _has_vector_form(op: ir.Operation) -> bool:
    dialect, _, name = op.name.partition(".")
    if dialect not in ("arith", "math") or len(op.regions) or name in _SCALAR_ONLY:
        return False
    return all(isinstance(r.type, ir.FloatType | ir.IntegerType | ir.IndexType) for r in op.results)


@dataclass(frozen=True)
class Combiner:
    """The operation that adds one iteration to a result."""

    op: ir.Operation

    @property
    def kind(self) -> ir.Attribute:
        """How `vector.reduction` calls it."""
        return ir.Attribute.parse(f"#vector.kind<{_COMBINE[self.op.name][0]}>")

    def neutral(self, type_: ir.VectorType) -> ir.Value:
        """A vector of values that change nothing."""
        return splat(type_, _COMBINE[self.op.name][1](type_.element_type))

    def apply(self, left: ir.Value, right: ir.Value) -> ir.Value:
        """Combine two values of a type."""
        return ir.Operation.create(self.op.name, [left.type], [left, right], dict(self.op.attributes)).result


def find_combiner(lanes: Lanes, result: int) -> Combiner | None:
    """What adds one iteration to a result, if it is something that lanes can be combined by."""
    total = lanes.block.arguments[lanes.input_count + result]
    owner = lanes.yielded[result].owner
    uses = [use.owner.operation for use in total.uses]
    if isinstance(owner, ir.Block) or uses != [owner.operation] or owner.operation.name not in _COMBINE:
        return None
    return Combiner(owner.operation)


def splat(type_: ir.VectorType, value: float | int) -> ir.Value:
    """A vector of equal numbers."""
    element = type_.element_type
    number = (
        ir.FloatAttr.get(element, float(value))
        if isinstance(element, ir.FloatType)
        else ir.IntegerAttr.get(element, int(value))
    )
    return arith.constant(type_, ir.DenseElementsAttr.get_splat(type_, number))
