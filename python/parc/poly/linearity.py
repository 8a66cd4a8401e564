"""How the tiles that an equation writes change with those that it reads: the blocks of a system's Jacobian.

One pass over the operations of a body, in order, keeps for every value which elements of which read tiles it depends
on, and on what the derivative itself depends.  From that follow

* *linearity*: what is written is an affine function of some reads, taken together, when no derivative depends on one
  of these reads.  A product of two reads is affine in each of them, not in both;
* the *kind* of each block of the Jacobian (`blocks.py`): diagonal, dense, of low rank, ...

Nothing is assumed about values: `where` needs a condition that no unknown enters to be affine, and `relu` is not.

    for block in jacobians(equation):
        print(block.read.operands[0], block.kind, block.is_affine_in(reads))
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce

import islpy as isl
from torch_mlir import ir
from torch_mlir.dialects import linalg

from parc.codegen.elements import static_extents, uses_dims
from parc.codegen.irtools import captured_values, defining_op
from parc.poly.blocks import Kind, Scale, Term, classify, merge, product, ranks_of
from parc.poly.elementwise import constant, guarded, rule
from parc.poly.patterns import Loops, Use, everything, identity, view_uses


@dataclass(frozen=True, eq=False)
class Jacobian:
    """The derivative of the tile of one `parc.write` by the tile of one `parc.read` of an unknown."""

    write: ir.Operation
    read: ir.Operation
    terms: tuple[Term, ...]
    """The derivative is their sum; none of them is empty."""
    kind: Kind
    """What sort of matrix it is."""
    mixes_rows: bool
    """Does a row (a value of the first index) of what is written depend on other rows of what is read?"""
    coefficients: frozenset[ir.Value]
    """What the entries of the matrix depend on, and the affine part of the tile by this read.

    Results of `parc.read`s, and coordinates of the point; known values that are the same at all points, such as
    weights, are left out.
    """

    @property
    def is_constant(self) -> bool:
        """Has the block the same entries at every point?"""
        return not self.coefficients

    def is_affine_in(self, reads: Collection[ir.Value]) -> bool:
        """Do the entries depend on none of these reads (results of `parc.read`)?

        What is written is an affine function of the reads when this is so for the blocks of all of them.
        """
        return self.coefficients.isdisjoint(reads)


def jacobians(equation: ir.Operation | ir.OpView) -> tuple[Jacobian, ...]:
    """The blocks of a `parc.equation`: one for each write and each unknown's read that it depends on, in that order."""
    operations = [o.operation for o in equation.operation.regions[0].blocks[0].operations]
    writes = [op for op in operations if op.name == "parc.write"]
    body = _Body()
    for op in operations:
        body.enter(op)
    necks = {read: _neck(operations, body, read) for read in unknown_reads(equation)}
    return tuple(
        _jacobian(write, read, terms, necks[read])
        for write in writes
        for read, terms in body.value(write.operands[0]).derivatives.items()
        if terms
    )


def unknown_reads(equation: ir.Operation | ir.OpView) -> list[ir.Value]:
    """The tiles of unknowns that the body of an equation reads, in order."""
    operations = (o.operation for o in equation.operation.regions[0].blocks[0].operations)
    return [op.results[0] for op in operations if _reads_unknown(op)]


def is_affine(blocks: Iterable[Jacobian], reads: Collection[ir.Value]) -> bool:
    """Is everything that an equation with these `blocks` writes an affine function of the reads, taken together?"""
    return all(block.is_affine_in(reads) for block in blocks if block.read.results[0] in reads)


@dataclass(frozen=True, eq=False)
class _Value:
    """What is known about a value of a body."""

    factor: Scale = "varies"
    """What a multiplication by it does to all elements."""
    given: frozenset[ir.Value] = frozenset()
    """Known tiles and coordinates, different from point to point, that it is computed from."""
    derivatives: Mapping[ir.Value, tuple[Term, ...]] = field(default_factory=dict)

    @property
    def sources(self) -> frozenset[ir.Value]:
        return self.given | {read for read, terms in self.derivatives.items() if terms}


@dataclass(frozen=True, eq=False)
class _Use:
    """How a result depends on one value that it is computed from."""

    value: _Value
    relation: isl.Map | None
    """`{ result element -> element of the value }`; None where each depends on the one at its own place."""
    scale: Scale
    coefficients: frozenset[ir.Value] = frozenset()


class _Scope:
    """The values of one block; subclasses say what enters it from outside."""

    def __init__(self) -> None:
        self.values: dict[ir.Value, _Value] = {}

    def outside(self, value: ir.Value) -> _Value:
        """A block argument, or what is defined before the block."""
        raise NotImplementedError

    def relation(self, result: ir.Value, operand: ir.Value) -> isl.Map | None:
        """Where each element of a result may depend on all elements of an operand."""
        raise NotImplementedError

    def value(self, value: ir.Value) -> _Value:
        if value not in self.values:
            self.values[value] = self.outside(value)
        return self.values[value]

    def enter(self, op: ir.Operation) -> None:
        """Derive the results of an operation from its operands."""
        for result in op.results:
            self.values[result] = _combined(self._uses(op, result), self._factor(op, result))

    def sources(self, values: Iterable[ir.Value]) -> frozenset[ir.Value]:
        return frozenset[ir.Value]().union(*(self.value(v).sources for v in values))

    def _factor(self, op: ir.Operation, result: ir.Value) -> Scale:
        number = constant(result)
        if number is not None:
            return number
        same = op.name.startswith(("arith.", "math.")) and all(self.value(v).factor != "varies" for v in op.operands)
        return "uniform" if same and op.name != "arith.constant" else "varies"

    def _uses(self, op: ir.Operation, result: ir.Value) -> Iterator[_Use]:
        if (value := guarded(op)) is not None:
            yield _Use(self.value(value), None, 1.0)
            return
        if op.name.startswith(("arith.", "math.")):
            values = [self.value(v) for v in op.operands]
            for number, factor, on in rule(op, [v.factor for v in values]):
                yield _Use(values[number], None, factor, self.sources(op.operands[i] for i in on))
            return
        if op.name in _SIZES:
            return
        moved = self._moved(op)
        sources = {use.operand for use in moved}
        others = [v for v in (captured_values(op) if op.regions else op.operands) if v not in sources]
        for use in moved:
            yield _Use(self.value(use.operand), use.relation, 1.0, self.sources(others))
        # What only says which elements are meant (an index) makes the result jump; other operations can do anything.
        scale: Scale = 0.0 if moved else "varies"
        for operand in others:
            if self.value(operand).sources:
                coefficients = self.sources([*sources, *others])
                yield _Use(self.value(operand), self.relation(result, operand), scale, coefficients)

    def _moved(self, op: ir.Operation) -> Sequence[Use]:
        """The operands whose elements an operation hands on; one that is used twice is there twice."""
        return view_uses(op) or ()


class _Body(_Scope):
    """The body of an equation."""

    def outside(self, value: ir.Value) -> _Value:
        if isinstance(value.owner, ir.Block) and _is_equation(value.owner.owner):
            return _Value("uniform", frozenset((value,)))
        number = constant(value)
        if number is not None:
            return _Value(number)
        return _Value("varies" if static_extents(value.type) else "uniform")

    def relation(self, result: ir.Value, operand: ir.Value) -> isl.Map:
        return everything(result, operand)

    def enter(self, op: ir.Operation) -> None:
        if op.name != "parc.read":
            super().enter(op)
            return
        tile = op.results[0]
        if _reads_unknown(op):
            pattern = identity(tile)
            self.values[tile] = _Value(derivatives={tile: (Term(pattern, 1.0, ranks_of(pattern)),)})
        else:
            moves = any(uses_dims(e) for e in ir.AffineMapAttr(op.attributes["at"]).value.results)
            self.values[tile] = _Value(given=frozenset((tile,)) if moves else frozenset())

    def _uses(self, op: ir.Operation, result: ir.Value) -> Iterator[_Use]:
        structured = op.name.startswith("linalg.") and linalg.get_indexing_maps(op.opview) is not None
        return self._structured(op, result) if structured else super()._uses(op, result)

    def _structured(self, op: ir.Operation, result: ir.Value) -> Iterator[_Use]:
        """A linalg operation: its region is a block of scalars, whose arguments are elements of the operands."""
        loops, block = Loops(op, result), op.regions[0].blocks[0]
        *scalars, terminator = (o.operation for o in block.operations)
        inner = _Scalars(self, dict(zip(block.arguments, op.operands, strict=True)))
        for scalar in scalars:
            inner.enter(scalar)
        yielded = inner.value(terminator.operands[ir.OpResult(result).result_number])
        numbers = {argument: number for number, argument in enumerate(block.arguments)}
        so_far = yielded.derivatives.get(block.arguments[loops.out])
        is_sum = so_far is not None and so_far[0].scale == 1.0 and not so_far[0].coefficients
        for leaf, (term, *_) in yielded.derivatives.items():
            operand = inner.operand(leaf)
            relation = loops.relation(numbers[leaf]) if leaf in numbers else everything(result, operand)
            scale, on = term.scale, term.coefficients
            if loops.has_reductions() and leaf != block.arguments[loops.out]:
                # What is combined in another way than by a sum depends on all that was combined before.
                on = on if is_sum else yielded.sources
                once = leaf in numbers and loops.visits_once(numbers[leaf])
                scale = scale if is_sum and once else "varies"
            yield _Use(self.value(operand), relation, scale, self.sources(map(inner.operand, on)))


class _Scalars(_Scope):
    """The region of a linalg operation: a scalar calculation, with derivatives by the elements that it takes."""

    def __init__(self, body: _Body, operands: Mapping[ir.Value, ir.Value]) -> None:
        super().__init__()
        self.body = body
        self.operands = operands

    def operand(self, leaf: ir.Value) -> ir.Value:
        """The tensor that a block argument is an element of; itself for what the region captures."""
        return self.operands.get(leaf, leaf)

    def outside(self, value: ir.Value) -> _Value:
        operand = self.operand(value)
        # Each element may be another one, unless there is only one.
        factor = self.body.value(operand).factor
        return _Value(factor, derivatives={value: (Term(_SCALAR, 1.0, (1,)),)})

    def relation(self, result: ir.Value, operand: ir.Value) -> None:
        return None

    def _moved(self, op: ir.Operation) -> Sequence[Use]:
        # An element of a captured tensor: which one does not matter here.
        return [replace(use, relation=_SCALAR) for use in super()._moved(op)]


_SCALAR = isl.Map("{ [] -> [] }")
_SIZES = ("tensor.dim", "tensor.empty")
"""Operations whose results depend on no elements."""


def _combined(uses: Iterable[_Use], factor: Scale) -> _Value:
    """A value that is computed from others."""
    given: frozenset[ir.Value] = frozenset()
    derivatives: dict[ir.Value, list[Term]] = {}
    for use in uses:
        given |= use.value.given
        for read, terms in use.value.derivatives.items():
            derivatives.setdefault(read, []).extend(t for term in terms if (t := _chain(use, term)) is not None)
    return _Value(factor, given, {read: merge(terms) for read, terms in derivatives.items() if terms})


def _chain(use: _Use, term: Term) -> Term | None:
    """The chain rule; None where no element of the result takes part."""
    pattern, ranks = term.pattern, term.ranks
    if use.relation is not None:
        pattern = use.relation.apply_range(pattern)
        if pattern.is_empty():
            return None
        # What only moves elements can lower the rank, but that shows in the tiles' extents.
        if not (use.relation.is_single_valued() and use.relation.is_injective()):
            ranks = tuple(map(min, ranks, ranks_of(pattern)))
    return Term(pattern, product(use.scale, term.scale), ranks, term.coefficients | use.coefficients)


def _jacobian(write: ir.Operation, read: ir.Value, terms: tuple[Term, ...], neck: tuple[float, ...]) -> Jacobian:
    extents = static_extents(write.operands[0].type)
    kind = classify(terms, extents, static_extents(read.type), neck)
    mixes_rows = any(extent != 1 for extent in extents[:-1]) and not kind.rows_are_independent
    coefficients = frozenset[ir.Value]().union(*(term.coefficients for term in terms))
    return Jacobian(write, read.owner.operation, terms, kind, mixes_rows, coefficients)


def _neck(operations: Sequence[ir.Operation], body: _Body, read: ir.Value) -> tuple[float, ...]:
    """Bounds on the ranks of all blocks of a read, like `Term.ranks`, by what everything that is written goes through.

    All paths from the read to the writes go through an operation when, in the order of the body, none passes it by.
    """
    places = {value: place for place, op in enumerate(operations) for value in op.results}
    reached = [{v for v in captured_values(op) if read in body.value(v).derivatives} for op in operations]
    last: dict[int, int] = {}
    """For each operation that the writes need: the last one that uses it."""
    for place in reversed(range(len(operations))):
        if operations[place].name == "parc.write" or place in last:
            for value in reached[place]:
                last.setdefault(places[value], place)
    bounds = ranks_of(identity(read))
    furthest = 0
    for place in sorted(last):
        (value,) = operations[place].results if len(operations[place].results) == 1 else (read,)
        if furthest <= place and static_extents(value.type) != static_extents(read.type):
            patterns = [term.pattern for term in body.value(value).derivatives[read]]
            bounds = tuple(map(min, bounds, ranks_of(reduce(isl.Map.union, patterns))))
        furthest = max(furthest, last[place])
    return bounds


def _reads_unknown(op: ir.Operation) -> bool:
    array = defining_op(op.operands[0]) if op.name == "parc.read" else None
    return array is not None and array.operation.name == "parc.unknown"


def _is_equation(op: ir.Operation | ir.OpView) -> bool:
    return op.operation.name == "parc.equation"
