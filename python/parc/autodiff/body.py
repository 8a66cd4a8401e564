"""The body of a linalg operation, opened up: its scalars, to which derivatives are added, become tensors again."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from torch_mlir import ir
from torch_mlir.dialects import arith, linalg, tensor

from parc.autodiff import emit, windows
from parc.autodiff.extents import Sizes, as_value
from parc.codegen.irtools import captured_values, clone_with
from parc.codegen.sizes import Size

Combine = Callable[[ir.Value, ir.Value], ir.Value]
"""(result so far, next value) -> result."""


@dataclass(frozen=True)
class Operand:
    """A tensor, or a scalar, and the map by which the body sees it."""

    value: ir.Value
    map: ir.AffineMap


@dataclass
class OpenBody:
    """A copy of a linalg operation's body that is in no program: use it in `with`, which deletes it at the end.

    values: the copy of each value of the forward body.
    """

    op: ir.Operation
    sizes: Sizes
    values: dict[ir.Value, ir.Value] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.maps = [ir.AffineMapAttr(a).value for a in linalg.get_indexing_maps(self.op.opview)]
        self.input_count = len(self.op.operands) - len(self.op.results)
        self.operands = [Operand(v, m) for v, m in zip(self.op.operands, self.maps, strict=True)]
        self._reduces = [emit.REDUCTION in emit.iterators([m]) for m in self.maps[self.input_count :]]

    def __enter__(self) -> "OpenBody":
        self._holder = self.op.clone(ip=False)
        region = self._holder.regions[0]
        self.block = region.blocks[0]
        forward = self.op.regions[0].blocks[0]
        self.values.update(zip(forward.arguments, self.block.arguments, strict=True))
        *body, end = forward.operations
        *copies, self.end = self.block.operations
        for before, after in zip(body, copies, strict=True):
            self.values.update(zip(before.operation.results, after.operation.results, strict=True))
        return self

    def __exit__(self, *_: object) -> None:
        self._holder.erase()

    # -- scalars -----------------------------------------------------------------------------------------------

    @property
    def ops(self) -> list[ir.Operation]:
        """The operations of the body without its end."""
        return [o.operation for o in self.block.operations][:-1]

    @property
    def yielded(self) -> list[ir.Value]:
        """The value of each result."""
        return list(self.end.operation.operands)

    def result_argument(self, result: int) -> ir.Value:
        """The body's argument for what a result was before."""
        return self.block.arguments[self.input_count + result]

    def result_map(self, result: int) -> ir.AffineMap:
        """The map of a result."""
        return self.maps[self.input_count + result]

    def reduces(self, result: int) -> bool:
        """Whether several iterations meet in an element of a result."""
        return self._reduces[result]

    def see(self, value: ir.Value, map_: ir.AffineMap) -> ir.Value:
        """The scalar of another tensor at the current iteration."""
        self.operands.append(Operand(value, map_))
        return self.block.add_argument(value.type.element_type, self.op.location)

    def add_dimension(self) -> int:
        """Add an iteration dimension, in which no operand differs yet; its number."""
        number: int = self.maps[0].n_dims
        self.maps = [_wider(m) for m in self.maps]
        self.operands = [Operand(o.value, _wider(o.map)) for o in self.operands]
        return number

    def take_results(self, ops: Sequence[ir.Operation]) -> None:
        """Let these operations take the body's values from the forward results, where they are computed once."""
        for result, value in enumerate(self.yielded):
            users = [op for op in ops if value in list(op.operands)]
            if users and not isinstance(value.owner, ir.Block) and not self.reduces(result):
                known = self.see(self.op.results[result], self.result_map(result))
                for op in users:
                    for i, operand in enumerate(op.operands):
                        if operand == value:
                            op.operands[i] = known

    def adding(self) -> ir.InsertionPoint:
        """Where operations are added to the body."""
        return ir.InsertionPoint(self.end)

    def behind(self, value: ir.Value) -> list[ir.Operation]:
        """The operations that compute a value, in order."""
        wanted: set[ir.Operation] = set()
        pending = [value]
        while pending:
            owner = pending.pop().owner
            if not isinstance(owner, ir.Block) and owner.operation.block == self.block:
                if owner.operation not in wanted:
                    wanted.add(owner.operation)
                    pending += captured_values(owner)
        return [op for op in self.ops if op in wanted]

    def operand_of(self, scalar: ir.Value) -> Operand | None:
        """The operand whose element a value is."""
        if isinstance(scalar.owner, ir.Block) and scalar.owner == self.block:
            return self.operands[ir.BlockArgument(scalar).arg_number]
        return None

    def uses_argument(self, value: ir.Value, argument: ir.Value) -> bool:
        """Whether a value is computed from one of the body's arguments."""
        return value == argument or any(argument in captured_values(op) for op in self.behind(value))

    # -- tensors -----------------------------------------------------------------------------------------------

    def tensor(self, scalar: ir.Value, map_: ir.AffineMap, like: ir.Value) -> ir.Value:
        """The tensor (or scalar) of the form of `like` that has the sum of `scalar` wherever the map sends iterations.

        `scalar` is computed at each iteration; it is of the type of the elements of `like`.
        """
        own = self.operand_of(scalar)
        if own is not None and own.map == map_ and emit.is_permutation(map_) and own.value.type == like.type:
            return own.value
        if isinstance(like.type, ir.ShapedType):
            return self.array(scalar, map_, self.sizes.of(like), like.type.element_type)
        return tensor.extract(self.array(scalar, map_, [], like.type), [])

    def array(self, scalar: ir.Value, map_: ir.AffineMap, extents: Sequence[Size], element: ir.Type) -> ir.Value:
        """The same, a tensor with these extents and of this element type."""
        if emit.is_permutation(map_):
            out = emit.empty_of(extents, element)
            (total,) = self._generic([scalar], map_, self._inputs([scalar], map_), [out], None)
            return total
        narrow = ir.FloatType(element).width < _SUM_WIDTH
        wide = ir.F32Type.get() if narrow else element
        start = emit.filled(emit.empty_of(extents, wide))
        inputs = self._inputs([scalar], map_)
        turned = self._turned_around(scalar, map_, extents, inputs)
        if turned is not None:
            map_, inputs = turned
        (total,) = self._generic(
            [scalar], map_, inputs, [start], [lambda sum_, x: arith.addf(sum_, _extended(x, wide))]
        )
        if narrow:
            total = _truncated(total, emit.empty_of(extents, element))
        return total

    def reduced(
        self, scalars: Sequence[ir.Value], map_: ir.AffineMap, starts: Sequence[ir.Value], combine: Sequence[Combine]
    ) -> list[ir.Value]:
        """Each scalar combined over the dimensions that the map leaves out, starting from `starts`."""
        return self._generic(scalars, map_, self._inputs(scalars, map_), starts, combine)

    def extents(self) -> list[Size]:
        """The extents of the iteration space."""
        found: dict[int, Size] = {}
        for operand in self.operands:
            if isinstance(operand.value.type, ir.ShapedType):
                sizes = self.sizes.of(operand.value)
                for d, expr in enumerate(operand.map.results):
                    if isinstance(expr, ir.AffineDimExpr):
                        found.setdefault(expr.position, sizes[d])
        return [found[d] for d in range(self.maps[0].n_dims)]

    def linear_index(self, dims: Iterable[int]) -> ir.Value:
        """The number of an iteration in lexicographic order of `dims`, added to the body."""
        extents = self.extents()
        values = {d: as_value(extents[d]) for d in dims}
        with self.adding():
            total: ir.Value | None = None
            for d, extent in values.items():
                at = linalg.IndexOp(d).result
                total = at if total is None else arith.addi(arith.muli(total, extent), at)
            return total if total is not None else arith.constant(ir.IndexType.get(), 0)

    def _turned_around(
        self, scalar: ir.Value, map_: ir.AffineMap, whole: Sequence[Size], inputs: Mapping[int, Operand]
    ) -> tuple[ir.AffineMap, dict[int, Operand]] | None:
        """The map and the operands of a sum over windows without two that are added to one element at a time."""
        if all(isinstance(e, ir.AffineDimExpr) for e in map_.results):
            return None
        seen = [(o.value, o.map) for o in inputs.values()]
        ops = self.behind(scalar)
        sum_ = windows.Sum(map_, whole, self.extents(), self.result_map(0), seen, ops)
        turned = windows.turned_around(sum_, self.sizes)
        if turned is None:
            return None
        new_map, operands = turned
        return new_map, {i: Operand(*o) for i, o in zip(inputs, operands, strict=True)}

    def _inputs(self, scalars: Sequence[ir.Value], map_: ir.AffineMap) -> dict[int, Operand]:
        """The operands, by number, that scalars are computed from, and those that say the iterations' extents."""
        used = {*scalars, *(v for s in scalars for op in self.behind(s) for v in captured_values(op))}
        numbers = [i for i, a in enumerate(self.block.arguments) if a in used]
        numbers += self._to_cover([*(self.operands[i].map for i in numbers), map_])
        return {i: self.operands[i] for i in numbers}

    def _generic(
        self,
        scalars: Sequence[ir.Value],
        map_: ir.AffineMap,
        inputs: Mapping[int, Operand],
        outputs: Sequence[ir.Value],
        combine: Sequence[Combine] | None,
    ) -> list[ir.Value]:
        """A `linalg.generic` that computes the scalars from these operands."""
        ops = list(dict.fromkeys(op for s in scalars for op in self.behind(s)))
        ops.sort(key={op: i for i, op in enumerate(self.ops)}.__getitem__)
        maps = [*(o.map for o in inputs.values()), *[map_] * len(outputs)]
        generic = emit.generic([o.value for o in inputs.values()], outputs, maps)
        block = generic.regions[0].blocks[0]
        values = dict(zip([self.block.arguments[i] for i in inputs], block.arguments, strict=False))
        with ir.InsertionPoint(block):
            for op in ops:
                clone_with(op, values)
            results = [values.get(s, s) for s in scalars]
            if combine is not None:
                totals = list(block.arguments)[len(inputs) :]
                results = [c(t, r) for c, t, r in zip(combine, totals, results, strict=True)]
            linalg.YieldOp(results)
        return list(generic.results)

    def _to_cover(self, maps: Sequence[ir.AffineMap]) -> list[int]:
        """Further operands that say the extents of the dimensions that no map of these does."""
        known = {d for m in maps for d in _plain(m)}
        more = []
        for i, operand in enumerate(self.operands):
            if not known.issuperset(_plain(operand.map)):
                known.update(_plain(operand.map))
                more.append(i)
        return more


_SUM_WIDTH = 32


def _wider(map_: ir.AffineMap) -> ir.AffineMap:
    """The map with one more dimension, which it does not use."""
    return ir.AffineMap.get(map_.n_dims + 1, map_.n_symbols, list(map_.results))


def _plain(map_: ir.AffineMap) -> list[int]:
    """The dimensions that are results of a map."""
    return [e.position for e in map_.results if isinstance(e, ir.AffineDimExpr)]


def _extended(value: ir.Value, type_: ir.Type) -> ir.Value:
    return value if value.type == type_ else arith.extf(type_, value)


def _truncated(value: ir.Value, out: ir.Value) -> ir.Value:
    identity = ir.AffineMap.get_identity(value.type.rank)
    op = emit.generic([value], [out], [identity, identity])
    block = op.regions[0].blocks[0]
    with ir.InsertionPoint(block):
        linalg.YieldOp([arith.truncf(out.type.element_type, block.arguments[0])])
    return op.results[0]
