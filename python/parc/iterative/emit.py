"""Writes `parc.iterate` operations at the insertion point."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce

from torch_mlir import ir
from torch_mlir.dialects import affine, arith, linalg, math, tensor

from parc.autodiff.emit import constant
from parc.autodiff.extents import Sizes, split

Sweep = Callable[[ir.Value, Sequence[ir.Value]], tuple[Sequence[ir.Value], ir.Value]]
"""(sweeps before this one, arrays of the one before) -> (new arrays, change)."""


@dataclass(frozen=True)
class Iteration:
    """What a `parc.iterate` says of itself: `parc.iterate`'s attributes, for names, checks and reports."""

    name: str
    solver: str
    tolerance: float
    """The largest change of an element, in its own units, that counts as none."""
    arrays: Sequence[str]
    bound: ir.AffineMap
    """After so many sweeps the arrays are exact, in exact arithmetic and whatever they started from."""
    symbols: Sequence[str]
    """The names of the bound's symbols."""
    why: str
    start: str = "zeros"


def build_iterate(
    about: Iteration,
    starts: Sequence[ir.Value],
    limit: ir.Value,
    sweep: Sweep,
    otherwise: Callable[[], Sequence[ir.Value]] | None = None,
) -> list[ir.Value]:
    """Sweep over arrays until nothing changes, `limit` (an index) times at most; returns the last arrays.

    otherwise: what the arrays are where the last change is still larger than the tolerance; None where `limit` is the
    bound.
    """
    text = ir.StringAttr.get
    op = ir.Operation.create(
        "parc.iterate",
        results=[ir.Type.parse("!parc.solution")],
        operands=[limit],
        attributes={
            "name": text(about.name),
            "solver": text(about.solver),
            "tolerance": ir.FloatAttr.get(ir.F64Type.get(), about.tolerance),
            "arrays": ir.ArrayAttr.get([text(name) for name in about.arrays]),
            "bound": ir.AffineMapAttr.get(about.bound),
            "symbols": ir.ArrayAttr.get([text(name) for name in about.symbols]),
            "start": text(about.start),
            "why": text(about.why),
        },
        regions=2,
    )
    block = op.regions[0].blocks.append(ir.IndexType.get())
    with ir.InsertionPoint(block):
        previous = [
            ir.Operation.create("parc.previous", [start.type], [start], {"name": text(name)}).results[0]
            for name, start in zip(about.arrays, starts, strict=True)
        ]
        news, change = sweep(block.arguments[0], previous)
        _hand_on(about.arrays, news)
        ir.Operation.create("parc.change", [], [change])
    if otherwise is not None:
        with ir.InsertionPoint(op.regions[1].blocks.append()):
            _hand_on(about.arrays, otherwise())
    return [
        ir.Operation.create("parc.iterated", [start.type], [op.results[0]], {"name": text(name)}).results[0]
        for name, start in zip(about.arrays, starts, strict=True)
    ]


def _hand_on(names: Sequence[str], values: Sequence[ir.Value]) -> None:
    for name, value in zip(names, values, strict=True):
        ir.Operation.create("parc.next", [], [value], {"name": ir.StringAttr.get(name)})


def largest_change(news: Sequence[ir.Value], olds: Sequence[ir.Value]) -> ir.Value:
    """The largest |new - old| of all elements: f64 if one of the arrays is, else f32; NaN where one of them is.

    Integers and booleans that differ count as 1.
    """
    changes = [_change(new, old) for new, old in zip(news, olds, strict=True)]
    if any(isinstance(c.type, ir.F64Type) for c in changes):
        f64 = ir.F64Type.get()
        changes = [c if isinstance(c.type, ir.F64Type) else arith.extf(f64, c) for c in changes]
    return reduce(arith.maximumf, changes)


def capped(bound: ir.AffineMap, symbols: Sequence[ir.Value], limit: int) -> ir.Value:
    """The smaller one of a bound and a limit, as an index; the bound where the limit is 0."""
    value = affine.AffineApplyOp(bound, list(symbols)).result
    return value if not limit else arith.minsi(value, arith.constant(ir.IndexType.get(), limit))


def _change(new: ir.Value, old: ir.Value) -> ir.Value:
    """The largest change of one array."""
    type_ = new.type
    number = type_.element_type if isinstance(type_.element_type, ir.F64Type) else ir.F32Type.get()
    sizes = Sizes().of(old)

    def apart(a: ir.Value, b: ir.Value) -> ir.Value:
        if not isinstance(a.type, ir.FloatType):
            differ = arith.cmpi(arith.CmpIPredicate.ne, a, b)
            return arith.uitofp(number, differ)
        far = math.absf(arith.subf(a, b))
        return far if far.type == number else arith.extf(number, far)

    # Over the inner dimensions first: those of the first one, in parallel.
    kept = min(1, type_.rank - 1) if type_.rank else 0
    rows = _largest([new, old], sizes[:kept], number, type_.rank, apart)
    total = rows if kept == 0 else _largest([rows], [], number, kept, lambda a: a)
    return tensor.extract(total, [])


def _largest(
    inputs: Sequence[ir.Value],
    sizes: Sequence[ir.Value | int],
    number: ir.Type,
    rank: int,
    body: Callable[..., ir.Value],
) -> ir.Value:
    """The largest value of a body over all but the leading dimensions, whose extents are `sizes`."""
    dynamic, static = split(sizes)
    empty = ir.Operation.create("tensor.empty", [ir.RankedTensorType.get(static, number)], dynamic).results[0]
    start = linalg.fill(constant(number, 0.0), outs=[empty])
    dims = [ir.AffineExpr.get_dim(d) for d in range(rank)]
    whole, kept = ir.AffineMap.get(rank, 0, dims), ir.AffineMap.get(rank, 0, dims[: len(sizes)])
    kinds = ["parallel"] * len(sizes) + ["reduction"] * (rank - len(sizes))
    op = linalg.GenericOp(
        [start.type],
        list(inputs),
        [start],
        ir.ArrayAttr.get([ir.AffineMapAttr.get(m) for m in (*[whole] * len(inputs), kept)]),
        ir.ArrayAttr.get([ir.Attribute.parse(f"#linalg.iterator_type<{kind}>") for kind in kinds]),
    )
    types = [v.type.element_type for v in inputs]
    block = op.regions[0].blocks.append(*types, number)
    with ir.InsertionPoint(block):
        *values, so_far = block.arguments
        linalg.YieldOp([arith.maximumf(so_far, body(*values))])
    return op.results[0]
