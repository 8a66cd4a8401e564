"""Values outside the systems: what the model computes before, between and after its loops."""

from collections.abc import Callable, Sequence

from torch_mlir import ir
from torch_mlir.dialects import tensor

from parc.errors import CompileError
from parc.recurrence.fit import Extent, StepMap
from parc.recurrence.layout import reshape, tensor_type, transpose
from parc.recurrence.reads import FromSequence, Recurrences, has_steps, is_early
from parc.recurrence.stacks import Run, find_runs, flipped, interleaved, repeated, stacked
from parc.recurrence.symbolic import SymbolicCloner
from parc.recurrence.trace import Node, Root
from parc.recurrence.unknowns import Sources, Unknown, Unknowns

_IRREGULAR = (
    "where this value comes from depends on the sizes, and not as in a loop that does the same in every step: make the "
    "size that changes it static"
)

Solve = Callable[[int], dict[Unknown, ir.Value]]
"""Gives the arrays of the system of a level, which is written when first asked for."""


class Outside:
    """Makes values in the body of `@main`, at the current insertion point, each when it is first asked for."""

    def __init__(
        self,
        found: Recurrences,
        unknowns: Unknowns,
        cloner: SymbolicCloner,
        arguments: Sequence[ir.Value],
        solve: Solve,
    ) -> None:
        self.found = found
        self.unknowns = unknowns
        self.cloner = cloner
        self.solve = solve
        self._made: dict[tuple[Root, ...], ir.Value] = {
            ((-1, i),) * len(found.steps): value for i, value in enumerate(arguments)
        }
        self._early: dict[tuple[Root, ...], ir.Value] = {}
        self._transposed: dict[tuple[ir.Value, tuple[int, ...]], ir.Value] = {}

    def value(self, sources: Sources) -> ir.Value:
        """The value of these sources, one per trace."""
        roots = tuple(s.root for s in sources)
        if roots not in self._made:
            self._made[roots] = self._root(sources)
        return self.reshaped(self._made[roots], sources)

    def before(self, sources: Sources) -> ir.Value:
        """A value given to the first steps: what a loop's first steps compute alone is computed again before it."""
        steps = self.found.steps[0]
        if not has_steps(sources[0], steps) or not is_early(sources[0], steps):
            return self.value(sources)
        roots = tuple(s.root for s in sources)
        if roots not in self._early:
            nodes = [s.node for s in sources if s.node is not None]
            operands = [self.before(inputs) for inputs in zip(*(n.inputs for n in nodes), strict=True)]
            self._early[roots] = self.cloner.clone([n.op for n in nodes], operands)[sources[0].result]
        return self.reshaped(self._early[roots], sources)

    def reshaped(self, value: ir.Value, sources: Sources) -> ir.Value:
        """The value after the sources' reshapes."""
        if len({len(s.reshapes) for s in sources}) > 1:
            raise CompileError("how a value is reshaped depends on the sizes", sources[0].reshapes[0].location)
        for ops in zip(*(s.reshapes for s in sources), strict=True):
            value = self.cloner.clone(ops, [value])[0]
        return value

    def sequence(self, read: FromSequence) -> tuple[ir.Value, list[int]]:
        """The sequence that a loop reads, with its moving dimensions in front, and which those are."""
        value = self.value(read.sequence)
        moving = [d for d, m in enumerate(read.offsets) if m.factor and read.sizes[d] == Extent(1)]
        order = (*moving, *(d for d in range(len(read.offsets)) if d not in moving))
        if list(order) == sorted(order):
            return value, moving
        if (value, order) not in self._transposed:
            shape = self.cloner.shape([s.type for s in read.sequence], ir.Location.current)
            self._transposed[(value, order)] = transpose(self.cloner, value, order, shape)
        return self._transposed[(value, order)], moving

    def _root(self, sources: Sources) -> ir.Value:
        nodes = [s.node for s in sources if s.node is not None]
        steps = self.found.steps
        placed = {n in s.place for n, s in zip(nodes, steps, strict=False)}
        if len(nodes) < len(sources) or len(placed) > 1:
            raise CompileError(_IRREGULAR, nodes[0].op.location if nodes else None)
        with nodes[0].op.location:
            if placed == {True}:
                return self._state(sources, nodes)
            if nodes[0].name == "tensor.concat":
                return self._concat(nodes)
            if len({len(n.inputs) for n in nodes}) > 1:
                raise CompileError("what runs here depends on the sizes", nodes[0].op.location)
            operands = [self.value(inputs) for inputs in zip(*(n.inputs for n in nodes), strict=True)]
            results = self.cloner.clone([n.op for n in nodes], operands)
        for i, result in enumerate(results):
            self._made[tuple((n.index, i) for n in nodes)] = result
        return results[sources[0].result]

    def _state(self, sources: Sources, nodes: Sequence[Node]) -> ir.Value:
        """One step's value, taken out of a solved array."""
        places = [s.place[n] for s, n in zip(self.found.steps, nodes, strict=True)]
        location = nodes[0].op.location
        if len({p[0].index for p in places}) > 1:
            raise CompileError(_IRREGULAR, location)
        step = self.cloner.extent([p[1] for p in places], location, "the step of a value that is used after the loop")
        unknown = self.unknowns.find(places[0][0].index, sources[0].result)
        return self._slab(unknown, step, Extent(1), drop=True)

    def _slab(self, unknown: Unknown, first: Extent, count: Extent, drop: bool = False) -> ir.Value:
        """The entries of `count` steps from `first` on, in the array's order; `drop` the leading dimension of one."""
        array = self.solve(self.unknowns.group_of[unknown.repetition].level)[unknown]
        shape = self.cloner.shape(self.unknowns.value_types(unknown), ir.Location.current)
        lowest = first + count + (-1) if unknown.backwards else first
        position = self.unknowns.position(unknown, StepMap(1, lowest)).offset
        type_ = tensor_type(shape if drop else [count, *shape], array.type.element_type)
        return self.cloner.extract_slice(array, [position, *[Extent(0)] * len(shape)], [count, *shape], type_)

    def _concat(self, nodes: Sequence[Node]) -> ir.Value:
        """A concatenation; every run of steps is taken out of its array as one slice."""
        dim = nodes[0].op.attributes["dim"].value
        runs = [find_runs(n, s) for n, s in zip(nodes, self.found.steps, strict=True)]
        if len({tuple(r.shape for r in rs) for rs in runs}) > 1:
            raise CompileError("what is concatenated here depends on the sizes", nodes[0].op.location)
        pieces = [self._run(group, dim) for group in zip(*runs, strict=True)]
        if len(pieces) == 1:
            return pieces[0]
        type_ = self.cloner.type([n.op.results[0].type for n in nodes], nodes[0].op.location)
        return tensor.ConcatOp(type_, dim, pieces).result

    def _run(self, runs: tuple[Run, ...], dim: int) -> ir.Value:
        location = ir.Location.current
        first = runs[0]
        if len(first.sources) == 1:
            return self.value(tuple(r.sources[0] for r in runs))
        piece = self.cloner.shape([r.sources[0].type for r in runs], location)
        count = self.cloner.extent([r.count for r in runs], location, "the length of a stack")
        if not first.repetitions:
            value = self.value(tuple(r.sources[0] for r in runs))
            return stacked(self.cloner, repeated(self.cloner, value, count, piece), count, piece, piece, dim)
        start = self.cloner.extent([r.first for r in runs], location, "the first step of a stack")
        unknowns = [self.unknowns.find(r, s.result) for r, s in zip(first.repetitions, first.sources, strict=False)]
        value_shape = self.cloner.shape(self.unknowns.value_types(unknowns[0]), location)
        slabs = [self._slab(u, start, count) for u in unknowns]
        slabs = [
            slab if u.backwards == (first.direction < 0) else flipped(self.cloner, slab, [count, *value_shape])
            for slab, u in zip(slabs, unknowns, strict=True)
        ]
        slab = interleaved(self.cloner, slabs, count, value_shape)
        if len(slabs) > 1:
            count = self.cloner.extent([len(r.sources) for r in runs], location, "the length of a stack")
        return stacked(self.cloner, slab, count, value_shape, piece, dim)

    def without_units(self, sources: Sources, unknown: Unknown) -> ir.Value:
        """A value given to the first steps, without the unit dimensions that the loop's own values do not have."""
        location = self.found.samples(unknown.repetition)[0].op.location
        shape = self.cloner.shape([s.type for s in sources], location)
        wanted = self.cloner.shape(self.unknowns.value_types(unknown), location)
        return reshape(self.cloner, self.before(sources), shape, wanted)
