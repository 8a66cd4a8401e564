"""Concatenations of the steps of a loop: how they are recognised, and how they are made from a solved array.

`torch.stack(ys)` of an unrolled loop is one `tensor.concat` with an operand per step.  Its operands are cut into
*runs*: consecutive steps of one repetition, or of several in turn; one value again and again; or a single value.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch_mlir import ir
from torch_mlir.dialects import arith, linalg, tensor

from parc.recurrence.fit import Extent
from parc.recurrence.layout import reshape, tensor_type, transpose
from parc.recurrence.steps import Steps
from parc.recurrence.symbolic import SymbolicCloner
from parc.recurrence.trace import Node, Source

#: At most so many repetitions take turns in a run.
_MAX_PERIOD = 8


@dataclass
class Run:
    """Neighbours in a concatenation.

    `direction` is 1 or -1 for steps that go up or down (`period` repetitions in turn), 0 for one value `count` times.
    """

    sources: list[Source]
    #: The repetition of each of the first `period` sources; empty for values outside of loops.
    repetitions: tuple[int, ...] = ()
    direction: int = 0
    #: The lowest step.
    first: int = 0

    @property
    def count(self) -> int:
        """How many times the period, or the one value, occurs."""
        return len(self.sources) // max(1, len(self.repetitions))

    @property
    def shape(self) -> tuple[object, ...]:
        """What must be the same in all traces."""
        is_single = len(self.sources) == 1
        return (is_single, *(() if is_single else (self.repetitions, self.direction, self.sources[0].result)))


def find_runs(concat: Node, steps: Steps) -> list[Run]:
    """Cut the operands of a concatenation into runs, the longest first wherever there is a choice."""
    sources = concat.inputs
    runs: list[Run] = []
    position = 0
    while position < len(sources):
        run = _longest_run(sources[position:], steps)
        runs.append(run)
        position += len(run.sources)
    return runs


def _longest_run(sources: Sequence[Source], steps: Steps) -> Run:
    same = next((i for i, s in enumerate(sources) if s != sources[0]), len(sources))
    if same > 1:
        return Run(list(sources[:same]))
    place = steps.place.get(sources[0].node) if sources[0].node is not None else None
    if place is None:
        return Run([sources[0]])
    for period, direction in ((1, 1), (1, -1), *((p, 1) for p in range(2, _MAX_PERIOD + 1))):
        length = _matching(sources, steps, period, direction) // period * period
        if length >= 2 * period:
            places = [steps.place[s.node] for s in sources[:length]]  # type: ignore[index]
            first = min(places[0][1], places[-1][1])
            return Run(list(sources[:length]), tuple(p[0].index for p in places[:period]), direction, first)
    return Run([sources[0]], (place[0].index,), 1, place[1])


def _matching(sources: Sequence[Source], steps: Steps, period: int, direction: int) -> int:
    """How many sources follow the pattern: the same repetition as `period` places before, one step on."""
    for i, source in enumerate(sources):
        place = steps.place.get(source.node) if source.node is not None else None
        if place is None:
            return i
        if i >= period:
            before = sources[i - period]
            repetition, step = steps.place[before.node]  # type: ignore[index]
            if place != (repetition, step + direction) or source.result != before.result:
                return i
        elif i and place[1] != steps.place[sources[0].node][1]:  # type: ignore[index]
            return i
    return len(sources)


def stacked(
    cloner: SymbolicCloner, slab: ir.Value, count: Extent, value: Sequence[Extent], piece: Sequence[Extent], dim: int
) -> ir.Value:
    """[count, *value] as `count` pieces of shape `piece` joined along `dim`."""
    if list(value) != list(piece):
        slab = reshape(cloner, slab, [count, *value], [count, *piece])
    order = [*range(1, dim + 1), 0, *range(dim + 1, len(piece) + 1)]
    if order != sorted(order):
        slab = transpose(cloner, slab, order, [count, *piece])
    groups = [[i] for i in range(dim)] + [[dim, dim + 1]] + [[i + 1] for i in range(dim + 1, len(piece))]
    return _collapse(slab, groups)


def interleaved(cloner: SymbolicCloner, slabs: Sequence[ir.Value], count: Extent, value: Sequence[Extent]) -> ir.Value:
    """[count, *value] slabs as one of `count * len(slabs)` entries, taken from the slabs in turn."""
    if len(slabs) == 1:
        return slabs[0]
    shape, split = [count, *value], [count, Extent(1), *value]
    parts = [reshape(cloner, slab, shape, split) for slab in slabs]
    type_ = tensor_type([count, Extent(len(slabs)), *value], slabs[0].type.element_type)
    joined = tensor.ConcatOp(type_, 1, parts).result
    return _collapse(joined, [[0, 1], *([i + 2] for i in range(len(value)))])


def repeated(cloner: SymbolicCloner, value: ir.Value, count: Extent, shape: Sequence[Extent]) -> ir.Value:
    """[count, *shape] with `value` in every entry."""
    type_ = tensor_type([count, *shape], value.type.element_type)
    _, dynamic = cloner.mixed([count, *shape])
    empty = ir.Operation.create("tensor.empty", results=[type_], operands=dynamic).results[0]
    return linalg.broadcast(value, outs=[empty], dimensions=[0]).results[0]


def flipped(cloner: SymbolicCloner, value: ir.Value, shape: Sequence[Extent]) -> ir.Value:
    """The entries of `value`, of this shape, in the opposite order along its first dimension."""
    element, rank = value.type.element_type, len(shape)
    _, dynamic = cloner.mixed(shape)
    empty = ir.Operation.create("tensor.empty", results=[value.type], operands=dynamic).results[0]
    last = cloner.index(shape[0] + (-1))
    parallel = ", ".join(["#linalg.iterator_type<parallel>"] * rank)
    op = ir.Operation.create(
        "linalg.generic",
        results=[value.type],
        operands=[empty],
        attributes={
            "indexing_maps": ir.ArrayAttr.get([ir.AffineMapAttr.get(ir.AffineMap.get_identity(rank))]),
            "iterator_types": ir.Attribute.parse(f"[{parallel}]"),
            "operandSegmentSizes": ir.DenseI32ArrayAttr.get([0, 1]),
        },
        regions=1,
    )
    with ir.InsertionPoint(op.regions[0].blocks.append(element, arg_locs=[op.location])):
        indices = [linalg.IndexOp(d).result for d in range(rank)]
        linalg.yield_([tensor.extract(value, [arith.subi(last, indices[0]), *indices[1:]])])
    return op.results[0]


def _collapse(value: ir.Value, groups: list[list[int]]) -> ir.Value:
    shape, dynamic = list(value.type.shape), ir.ShapedType.get_dynamic_size()
    static = []
    for group in groups:
        extents = [shape[d] for d in group]
        product = 1
        for e in extents:
            product *= e
        static.append(dynamic if dynamic in extents else product)
    type_ = ir.RankedTensorType.get(static, value.type.element_type)
    return tensor.CollapseShapeOp(type_, value, groups).result
