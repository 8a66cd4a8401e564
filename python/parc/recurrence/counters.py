"""Constants that change from step to step: `h / (t + 1)` in an unrolled loop has a 1, a 2, a 3, ... in it.

A scalar constant is normally a part of the operation that uses it.  Where the number of different constants grows
with the length of the trace, it is an input instead, whose value is a function of the step.
"""

from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from torch_mlir import ir
from torch_mlir.dialects import arith, linalg

from parc.errors import CompileError
from parc.recurrence.anchors import MIN_STEPS
from parc.recurrence.fit import Extent, StepMap, fit_steps
from parc.recurrence.symbolic import SymbolicCloner, is_constant
from parc.recurrence.trace import Numbering, Source, Trace

#: How far from whole multiples numbers may be that were rounded to 32 bits, relative to their size.
_EXACT = 1e-6


@dataclass(frozen=True)
class FromCounter:
    """The number `scale * at(step)`, or one over it; a scalar, or a tensor that holds it everywhere."""

    at: StepMap
    is_inverse: bool = False
    scale: float = 1.0


def round_constants(func: ir.Operation) -> None:
    """Replace conversions of constants to a smaller float type by constants of that type.

    The canonicalizer does so only where nothing is lost, which makes steps differ that do the same.
    """
    block = func.regions[0].blocks[0]
    with ir.InsertionPoint.at_block_begin(block), func.location:
        for op in block.operations:
            for region in op.operation.regions:
                for inner in [o.operation for b in region.blocks for o in b.operations]:
                    if inner.name == "arith.truncf" and is_constant(inner.operands[0]):
                        value = inner.operands[0].owner.attributes["value"].value
                        inner.results[0].replace_all_uses_with(arith.constant(inner.results[0].type, value))
                        inner.erase()


def release_counters(traces: Sequence[Trace], numbers: Numbering) -> None:
    """Turn the constants that change from step to step into inputs of the nodes that use them."""
    found: list[dict[Hashable, set[Hashable]]] = []
    for trace in traces:
        values: dict[Hashable, set[Hashable]] = defaultdict(set)
        for node in trace.nodes:
            if node.constants:
                values[node.kind].add(_values(node.constants))
        found.append(values)
    kinds = set(found[0]).union(*found[1:])
    counts = {kind: [len(values[kind]) for values in found] for kind in kinds}
    changing = {kind for kind, numbers in counts.items() if len(set(numbers)) > 1 and max(numbers) >= MIN_STEPS}
    for trace in traces:
        for node in trace.nodes:
            if node.kind in changing:
                node.inputs = [*node.inputs, *node.constants]
                types = tuple(s.type for s in node.inputs), tuple(r.type for r in node.op.results)
                node.key = numbers[("counting", node.kind, types)]
                node.constants = ()


def _values(constants: Sequence[Source]) -> tuple[ir.Attribute, ...]:
    return tuple(c.node.op.attributes["value"] for c in constants if c.node is not None)


def fit_counter(
    columns: Sequence[Sequence[tuple[int, Source]]], sizes: Sequence[tuple[int, ...]], location: ir.Location
) -> FromCounter | None:
    """What constants count, given (step, constant) per trace; None when they are no constants or no counter.

    Raises CompileError, at `location`, for constants that change in another way: nothing is known about them for
    lengths beyond the traced ones.
    """
    points: list[list[tuple[int, float]]] = []
    for column in columns:
        points.append([])
        for step, source in column:
            number = _number(source)
            if number is None:
                return None
            points[-1].append((step, number))
    numbers = [n for column in points for _, n in column]
    if len(set(numbers)) == 1:
        return None
    if read := _fit_numbers(points, sizes):
        return read
    if all(numbers) and (read := _fit_numbers([[(s, 1 / n) for s, n in column] for column in points], sizes)):
        return replace(read, is_inverse=True)
    shown = ", ".join(f"{n:.6g}" for _, n in points[-1][:4])
    raise CompileError(
        f"a number that the loop computes in Python takes the values {shown}, ... from step to step, which is neither "
        "a * t + b nor 1 / (a * t + b): compute it as a tensor for all steps (from torch.arange) and index that",
        location,
    )


def _fit_numbers(points: Sequence[Sequence[tuple[int, float]]], sizes: Sequence[tuple[int, ...]]) -> FromCounter | None:
    """Numbers that are all multiples of one, with factors that are affine in the step."""
    numbers = [n for column in points for _, n in column]
    whole = all(abs(n - round(n)) < _EXACT * max(1, abs(n)) for n in numbers)
    scale = 1.0 if whole else min(abs(a - b) for a, b in combinations(set(numbers), 2))
    factors = [[(s, round(n / scale)) for s, n in column] for column in points]
    exact = all(
        abs(factor * scale - n) < _EXACT * max(scale, abs(n))
        for column, values in zip(factors, points, strict=True)
        for (_, factor), (_, n) in zip(column, values, strict=True)
    )
    at = fit_steps(factors, sizes) if exact else None
    return None if at is None else FromCounter(at, scale=scale)


def _number(source: Source) -> float | None:
    """The value of a scalar constant, or of one that is equal everywhere."""
    if source.node is None or source.node.name != "arith.constant":
        return None
    value = source.node.op.attributes["value"]
    if isinstance(value, ir.DenseElementsAttr):
        if not value.is_splat:
            return None
        value = value.get_splat_value().maybe_downcast()
    return value.value if isinstance(value, ir.IntegerAttr | ir.FloatAttr) else None


def build_counter(read: FromCounter, sources: Sequence[Source], step: ir.Value, cloner: SymbolicCloner) -> ir.Value:
    """The counter's value at `step`, at the current insertion point."""
    type_ = cloner.type([s.type for s in sources], sources[0].node.op.location)  # type: ignore[union-attr]
    element = type_.element_type if isinstance(type_, ir.RankedTensorType) else type_
    index = ir.IndexType.get()
    scaled = arith.muli(step, arith.constant(index, read.at.factor))
    value = arith.addi(scaled, cloner.index(read.at.offset))
    if not isinstance(element, ir.IndexType):
        is_float = not isinstance(element, ir.IntegerType)
        value = arith.index_cast(ir.IntegerType.get_signless(64) if is_float else element, value)
        value = arith.sitofp(element, value) if is_float else value
    if read.scale != 1.0:
        value = arith.mulf(value, arith.constant(element, read.scale))
    if read.is_inverse:
        value = arith.divf(arith.constant(element, 1.0), value)
    if not isinstance(type_, ir.RankedTensorType):
        return value
    shape: list[Extent] = cloner.shape([s.type for s in sources], sources[0].node.op.location)  # type: ignore[union-attr]
    _, dynamic = cloner.mixed(shape)
    empty = ir.Operation.create("tensor.empty", results=[type_], operands=dynamic).results[0]
    return linalg.fill(value, outs=[empty])
