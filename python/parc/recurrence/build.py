"""Writes `@main` with its `parc.system`s from what the traces have in common."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from torch_mlir import ir
from torch_mlir.dialects import arith, linalg, tensor

from parc.errors import CompileError
from parc.recurrence.counters import FromCounter, build_counter
from parc.recurrence.fit import Extent
from parc.recurrence.groups import Group, find_groups
from parc.recurrence.reads import FromOutside, FromSequence, FromStep, Read, Recurrences, StepMap, has_steps, is_early
from parc.recurrence.symbolic import SymbolicCloner
from parc.recurrence.trace import Node, Source

Sources = tuple[Source, ...]


@dataclass(eq=False)
class _Unknown:
    """An unknown array: one repeated result over the steps, with the values given before the first one."""

    repetition: int
    result: int
    name: str
    #: step -> the value given for it
    given: dict[int, Sources] = field(default_factory=dict)
    #: Written last step first, because that is the order in which the model stacks it.
    backwards: bool = False


def build_main(found: Recurrences, symbols: Sequence[str]) -> ir.Operation:
    """A `func.func @main` at the current insertion point, equivalent to every trace at its sizes."""
    return _Builder(found, symbols).build()


class _Builder:
    def __init__(self, found: Recurrences, symbols: Sequence[str]) -> None:
        self.found = found
        self.symbols = list(symbols)
        self.traces = [s.trace for s in found.steps]
        self.groups = find_groups(found)
        self.group_of = {r: g for g in self.groups for r in g.repetitions}
        self.constant_roots = _constant_roots(found)
        self.unknowns: dict[tuple[int, int], list[_Unknown]] = defaultdict(list)
        self.outside: dict[tuple[tuple[int, int], ...], ir.Value] = {}
        self.early: dict[tuple[tuple[int, int], ...], ir.Value] = {}
        self.transposed: dict[tuple[ir.Value, tuple[int, ...]], ir.Value] = {}
        self.solved: dict[int, dict[_Unknown, ir.Value]] = {}
        self.names: dict[int, str] = {}

    # -- the function ------------------------------------------------------------------------------------------

    def build(self) -> ir.Operation:
        location = self.traces[0].func.location
        shapes = SymbolicCloner(self.found.sizes, [])
        arguments = list(zip(*(t.arguments for t in self.traces), strict=True))
        index = ir.IndexType.get()
        types = [index] * len(self.symbols) + [shapes.type([a.type for a in group], location) for group in arguments]
        results = list(zip(*(_types_of_results(t.func) for t in self.traces), strict=True))
        result_types = [shapes.type(group, location) for group in results]
        func = ir.Operation.create(
            "func.func",
            attributes={
                "sym_name": ir.StringAttr.get("main"),
                "function_type": ir.TypeAttr.get(ir.FunctionType.get(types, result_types)),
                "arg_attrs": self._argument_attributes(shapes, arguments),
                "res_attrs": self._result_attributes(shapes, results),
            },
            regions=1,
            loc=location,
        )
        block = func.regions[0].blocks.append(*types, arg_locs=[location] * len(types))
        count = len(self.symbols)
        self.cloner = SymbolicCloner(self.found.sizes, list(block.arguments)[:count])
        for i, value in enumerate(list(block.arguments)[count:]):
            self.outside[((-1, i),) * len(self.traces)] = value
        self._name_equations()
        self._plan_unknowns()
        with ir.InsertionPoint(block), location:
            values = [self._outer(sources) for sources in zip(*(t.results for t in self.traces), strict=True)]
            ir.Operation.create("func.return", operands=values)
        return func

    def _argument_attributes(self, shapes: SymbolicCloner, arguments: Sequence[Sequence[ir.Value]]) -> ir.ArrayAttr:
        attrs = [
            {"parc.kind": ir.StringAttr.get("symbol"), "parc.name": ir.StringAttr.get(name)} for name in self.symbols
        ]
        old = self.traces[0].func.attributes
        for i, group in enumerate(arguments):
            attrs.append({a.name: a.attr for a in old["arg_attrs"][i]} if "arg_attrs" in old else {})
            if isinstance(group[0].type, ir.RankedTensorType):
                attrs[-1]["parc.shape"] = self._shape_attribute(shapes, [v.type for v in group])
        return ir.ArrayAttr.get([ir.DictAttr.get(a) for a in attrs])

    def _result_attributes(self, shapes: SymbolicCloner, results: Sequence[Sequence[ir.Type]]) -> ir.ArrayAttr:
        old = self.traces[0].func.attributes
        attrs = []
        for i, group in enumerate(results):
            attrs.append({a.name: a.attr for a in old["res_attrs"][i]} if "res_attrs" in old else {})
            if isinstance(group[0], ir.RankedTensorType):
                attrs[-1]["parc.shape"] = self._shape_attribute(shapes, group)
        return ir.ArrayAttr.get([ir.DictAttr.get(a) for a in attrs])

    def _shape_attribute(self, shapes: SymbolicCloner, types: Sequence[ir.Type]) -> ir.AffineMapAttr:
        extents = shapes.shape(types, self.traces[0].func.location)
        return ir.AffineMapAttr.get(ir.AffineMap.get(0, len(self.symbols), [e.affine() for e in extents]))

    def _name_equations(self) -> None:
        cells = products = 0
        for group in sorted(self.groups, key=lambda g: (g.level, g.repetitions[0])):
            if group.is_recurrent:
                self.names[id(group)] = f"cell{cells}"
                cells += 1
            else:
                self.names[id(group)] = f"step{products}"
                products += 1

    # -- which arrays the systems have -------------------------------------------------------------------------

    def _plan_unknowns(self) -> None:
        """An array for every repeated result that is read in another step, by another equation or from outside."""
        for r, reads in enumerate(self.found.reads):
            for read in reads:
                if isinstance(read, FromStep) and not self._is_local(r, read):
                    self._unknown_for(read.repetition, read.result, dict(read.given))
        steps = self.found.steps[0]
        for node in steps.trace.nodes:
            if node in steps.place:
                continue
            for source in node.inputs:
                if source.node in steps.place:
                    self._unknown_for(steps.place[source.node][0].index, source.result, {})
            if node.name == "tensor.concat":
                self._note_direction(node)
        for source in steps.trace.results:
            if source.node in steps.place:
                self._unknown_for(steps.place[source.node][0].index, source.result, {})

    def _is_local(self, reader: int, read: FromStep) -> bool:
        """Whether the value is in the same equation's body."""
        same = self.group_of[reader] is self.group_of[read.repetition]
        return same and read.at.is_identity and not read.given

    def _unknown_for(self, repetition: int, result: int, given: dict[int, Sources]) -> _Unknown:
        known = self.unknowns[(repetition, result)]
        for unknown in known:
            if all(_same_roots(unknown.given.get(step, s), s) for step, s in given.items()):
                unknown.given.update(given)
                return unknown
        base = self.names[id(self.group_of[repetition])]
        number = sum(len(v) for (r, _), v in self.unknowns.items() if self.group_of[r] is self.group_of[repetition])
        known.append(_Unknown(repetition, result, f"{base}_h{number}", given))
        if len(known) > 1:
            known[-1].backwards = known[0].backwards
        return known[-1]

    def _note_direction(self, concat: Node) -> None:
        steps = self.found.steps[0]
        for a, b in zip(concat.inputs, concat.inputs[1:], strict=False):
            if a.node in steps.place and b.node in steps.place:
                (ra, sa), (rb, sb) = steps.place[a.node], steps.place[b.node]
                if ra is rb and sb == sa - 1:
                    for unknown in self.unknowns[(ra.index, a.result)]:
                        unknown.backwards = True

    def _bounds(self, unknown: _Unknown) -> tuple[int, Extent]:
        """The first step that the array holds, and how many."""
        first = self.found.first[unknown.repetition]
        low = min([first, *unknown.given])
        return low, self.found.count[unknown.repetition] + (first - low)

    def _position(self, unknown: _Unknown, step: StepMap) -> StepMap:
        """Where the array holds a step."""
        low, extent = self._bounds(unknown)
        if not unknown.backwards:
            return StepMap(step.factor, step.offset + (-low))
        return StepMap(-step.factor, extent + step.offset.scaled(-1) + (low - 1))

    def _value_types(self, unknown: _Unknown) -> list[ir.Type]:
        return [n.op.results[unknown.result].type for n in self.found.samples(unknown.repetition)]

    # -- values outside the systems ----------------------------------------------------------------------------

    def _outer(self, sources: Sources) -> ir.Value:
        """The value of these sources, one per trace, in the body of `@main`."""
        roots = tuple(s.root for s in sources)
        if roots not in self.outside:
            self.outside[roots] = self._outer_root(sources)
        return self._reshaped(self.outside[roots], sources)

    def _before(self, sources: Sources) -> ir.Value:
        """A value given to the first steps: what a loop's first steps compute alone is computed again before it."""
        steps = self.found.steps[0]
        if not has_steps(sources[0], steps) or not is_early(sources[0], steps):
            return self._outer(sources)
        roots = tuple(s.root for s in sources)
        if roots not in self.early:
            nodes = [s.node for s in sources if s.node is not None]
            operands = [self._before(inputs) for inputs in zip(*(n.inputs for n in nodes), strict=True)]
            self.early[roots] = self.cloner.clone([n.op for n in nodes], operands)[sources[0].result]
        return self._reshaped(self.early[roots], sources)

    def _reshaped(self, value: ir.Value, sources: Sources) -> ir.Value:
        if len({len(s.reshapes) for s in sources}) > 1:
            raise CompileError("how a value is reshaped depends on the sizes", sources[0].reshapes[0].location)
        for ops in zip(*(s.reshapes for s in sources), strict=True):
            value = self.cloner.clone(ops, [value])[0]
        return value

    def _outer_root(self, sources: Sources) -> ir.Value:
        nodes = [s.node for s in sources]
        placed = [n in s.place for n, s in zip(nodes, self.found.steps, strict=True)]
        if nodes[0] is None or None in nodes or len(set(placed)) > 1:
            raise CompileError(
                "where a value comes from depends on the sizes", next(n.op.location for n in nodes if n is not None)
            )
        instances = [n for n in nodes if n is not None]
        if placed[0]:
            return self._state(sources)
        if instances[0].name == "tensor.concat":
            return self._concat(instances)
        if len({len(n.inputs) for n in instances}) > 1:
            raise CompileError("what runs here depends on the sizes", instances[0].op.location)
        operands = [self._outer(inputs) for inputs in zip(*(n.inputs for n in instances), strict=True)]
        results = self.cloner.clone([n.op for n in instances], operands)
        for i, result in enumerate(results):
            self.outside[tuple((n.index, i) for n in instances)] = result
        return results[sources[0].result]

    def _state(self, sources: Sources) -> ir.Value:
        """One step's value, taken out of a solved array."""
        places = [s.place[src.node] for s, src in zip(self.found.steps, sources, strict=True)]  # type: ignore[index]
        repetition = places[0][0].index
        location = sources[0].node.op.location  # type: ignore[union-attr]
        if len({p[0].index for p in places}) > 1:
            raise CompileError("where a value comes from depends on the sizes", location)
        step = self.cloner.extent([p[1] for p in places], location, "the step of a value that is used after the loop")
        unknown = self._unknown_for(repetition, sources[0].result, {})
        return self._steps_of(unknown, step, Extent(1), drop=True)

    def _steps_of(self, unknown: _Unknown, first: Extent, count: Extent, drop: bool = False) -> ir.Value:
        """Array entries for `count` steps from `first` on (from the last of them, when written backwards)."""
        array = self._solve(self.group_of[unknown.repetition].level)[unknown]
        shape = self.cloner.shape(self._value_types(unknown), self.traces[0].func.location)
        position = (
            self._position(unknown, StepMap(1, first)).offset
            if not unknown.backwards
            else self._position(unknown, StepMap(1, first + count + (-1))).offset
        )
        offsets = [position] + [Extent(0)] * len(shape)
        sizes = [count, *shape]
        kept = shape if drop else sizes
        type_ = self._tensor_type(kept, array.type.element_type)
        return self.cloner.extract_slice(array, offsets, sizes, type_)

    def _tensor_type(self, shape: Sequence[Extent], element: ir.Type) -> ir.RankedTensorType:
        dynamic = ir.ShapedType.get_dynamic_size()
        return ir.RankedTensorType.get([e.constant if e.is_constant else dynamic for e in shape], element)

    # -- stacks of steps ---------------------------------------------------------------------------------------

    def _concat(self, nodes: list[Node]) -> ir.Value:
        """A concatenation; runs of consecutive steps of one array are taken out as one slice."""
        dim = nodes[0].op.attributes["dim"].value
        runs = [_runs(n, s) for n, s in zip(nodes, self.found.steps, strict=True)]
        if len({len(r) for r in runs}) > 1:
            raise CompileError("what is concatenated here depends on the sizes", nodes[0].op.location)
        pieces = [self._run(group, dim) for group in zip(*runs, strict=True)]
        if len(pieces) == 1:
            return pieces[0]
        type_ = self.cloner.type([n.op.results[0].type for n in nodes], nodes[0].op.location)
        with nodes[0].op.location:
            return tensor.ConcatOp(type_, dim, pieces).result

    def _run(self, runs: "tuple[_Run, ...]", dim: int) -> ir.Value:
        first = runs[0]
        location = self.traces[0].func.location
        if all(len(r.sources) == 1 for r in runs):
            return self._outer(tuple(r.sources[0] for r in runs))
        if len({(r.repetition, r.direction, r.sources[0].result) for r in runs if len(r.sources) > 1}) > 1:
            raise CompileError("what is concatenated here depends on the sizes", location)
        assert first.repetition is not None
        unknown = self._unknown_for(first.repetition, first.sources[0].result, {})
        if (first.direction < 0) != unknown.backwards:
            raise CompileError(
                "the steps of one loop are stacked in both directions; use torch.flip on the stacked tensor",
                first.sources[0].node.op.location,  # type: ignore[union-attr]
            )
        start = self.cloner.extent([r.first for r in runs], location, "the first step of a stack")
        count = self.cloner.extent([len(r.sources) for r in runs], location, "the length of a stack")
        slab = self._steps_of(unknown, start, count)
        value = self.cloner.shape(self._value_types(unknown), location)
        piece = self.cloner.shape([r.sources[0].type for r in runs], location)
        return self._stacked(slab, count, value, piece, dim)

    def _stacked(
        self, slab: ir.Value, count: Extent, value: Sequence[Extent], piece: Sequence[Extent], dim: int
    ) -> ir.Value:
        """[count, *value] as `count` pieces of shape `piece` joined along `dim`."""
        element = slab.type.element_type
        if list(value) != list(piece):
            slab = self._reshape(slab, [count, *value], [count, *piece])
        order = [*range(1, dim + 1), 0, *range(dim + 1, len(piece) + 1)]
        split = [piece[i - 1] if i else count for i in order]
        if order != sorted(order):
            slab = self._transpose(slab, order, split, element)
        joined_type = [*piece[:dim], None, *piece[dim + 1 :]]
        groups = [[i] for i in range(dim)] + [[dim, dim + 1]] + [[i + 1] for i in range(dim + 1, len(piece))]
        dynamic = ir.ShapedType.get_dynamic_size()
        static = []
        for d, extent in enumerate(joined_type):
            if extent is not None:
                static.append(extent.constant if extent.is_constant else dynamic)
            elif count.is_constant and piece[d].is_constant:
                static.append(count.constant * piece[d].constant)
            else:
                static.append(dynamic)
        return tensor.CollapseShapeOp(ir.RankedTensorType.get(static, element), slab, groups).result

    def _reshape(self, value: ir.Value, old: Sequence[Extent], new: Sequence[Extent]) -> ir.Value:
        """Insert or remove unit dimensions."""
        element = value.type.element_type
        kept_old = [i for i, e in enumerate(old) if e != Extent(1)]
        kept_new = [i for i, e in enumerate(new) if e != Extent(1)]
        if [old[i] for i in kept_old] != [new[i] for i in kept_new]:
            raise CompileError("a step's value is stacked in another shape than it has", self.traces[0].func.location)
        if len(kept_old) != len(old):
            value = tensor.CollapseShapeOp(
                self._tensor_type([old[i] for i in kept_old], element), value, _unit_groups(len(old), kept_old)
            ).result
        if len(kept_new) != len(new):
            static, dynamic = self.cloner.mixed(new)
            value = tensor.ExpandShapeOp(
                self._tensor_type(new, element), value, _unit_groups(len(new), kept_new), dynamic, static
            ).result
        return value

    def _transpose(self, value: ir.Value, order: list[int], shape: Sequence[Extent], element: ir.Type) -> ir.Value:
        type_ = self._tensor_type(shape, element)
        _, dynamic = self.cloner.mixed(shape)
        empty = ir.Operation.create("tensor.empty", results=[type_], operands=dynamic).results[0]
        return linalg.transpose(value, outs=[empty], permutation=order).results[0]

    # -- systems -----------------------------------------------------------------------------------------------

    def _solve(self, level: int) -> dict[_Unknown, ir.Value]:
        """The arrays of the system of one level, which is written when first asked for."""
        if level not in self.solved:
            # Everything that the system reads from outside is computed before it.
            groups = [g for g in self.groups if g.level == level]
            for group in groups:
                self._prepare_reads(group)
            self.solved[level] = _SystemWriter(self, groups).write()
        return self.solved[level]

    def _prepare_reads(self, group: Group) -> None:
        for r in group.repetitions:
            for read in self.found.reads[r]:
                if isinstance(read, FromOutside) and read.sources[0].root not in self.constant_roots:
                    self._outer(read.sources)
                elif isinstance(read, FromSequence):
                    self._sequence(read)
                elif isinstance(read, FromStep):
                    for _, sources in read.given:
                        self._before(sources)

    def _sequence(self, read: FromSequence) -> tuple[ir.Value, list[int]]:
        """The sequence with its moving dimensions in front, and which those are."""
        value = self._outer(read.sequence)
        moving = [d for d, m in enumerate(read.offsets) if m.factor and read.sizes[d] == Extent(1)]
        order = [*moving, *(d for d in range(len(read.offsets)) if d not in moving)]
        if order == sorted(order):
            return value, moving
        key = (value, tuple(order))
        if key not in self.transposed:
            types = [s.type for s in read.sequence]
            shape = self.cloner.shape(types, self.traces[0].func.location)
            self.transposed[key] = self._transpose(value, order, [shape[d] for d in order], value.type.element_type)
        return self.transposed[key], moving


class _SystemWriter:
    """Writes one `parc.system`."""

    def __init__(self, builder: _Builder, groups: list[Group]) -> None:
        self.b = builder
        self.groups = groups
        self.found = builder.found
        self.symbol_count = len(builder.symbols)

    def write(self) -> dict[_Unknown, ir.Value]:
        b = self.b
        unknowns = [u for g in self.groups for key, us in b.unknowns.items() if key[0] in g.repetitions for u in us]
        given = {u: {step: self._given(u, s) for step, s in u.given.items()} for u in unknowns}
        solution = ir.Type.parse("!parc.solution")
        system = ir.Operation.create(
            "parc.system",
            results=[solution],
            operands=b.cloner.symbols,
            attributes={"symbols": ir.ArrayAttr.get([ir.StringAttr.get(s) for s in b.symbols])},
            regions=1,
        )
        block = system.regions[0].blocks.append()
        self.arrays: dict[_Unknown, ir.Value] = {}
        with ir.InsertionPoint(block):
            for unknown in unknowns:
                self.arrays[unknown] = self._declare(unknown)
            for unknown in unknowns:
                for step, value in given[unknown].items():
                    self._boundary(unknown, step, value)
            for group in self.groups:
                self._equation(group)
        solved = {}
        for unknown, array in self.arrays.items():
            op = ir.Operation.create(
                "parc.array",
                results=[array.type],
                operands=[system.results[0]],
                attributes={"name": ir.StringAttr.get(unknown.name)},
            )
            solved[unknown] = op.results[0]
        return solved

    def _given(self, unknown: _Unknown, sources: Sources) -> ir.Value:
        """A value given to the first steps, without the unit dimensions that the loop's own values do not have."""
        b, location = self.b, self.found.samples(unknown.repetition)[0].op.location
        shape = b.cloner.shape([s.type for s in sources], location)
        return b._reshape(b._before(sources), shape, b.cloner.shape(b._value_types(unknown), location))

    def _map(self, dims: int, exprs: Sequence[ir.AffineExpr]) -> ir.AffineMapAttr:
        return ir.AffineMapAttr.get(ir.AffineMap.get(dims, self.symbol_count, list(exprs)))

    def _expr(self, at: StepMap) -> ir.AffineExpr:
        return ir.AffineExpr.get_dim(0) * at.factor + at.offset.affine()

    def _set(self, text: str, dims: str = "") -> ir.Attribute:
        return ir.Attribute.parse(f"affine_set<({dims})[{', '.join(self.b.symbols)}] : ({text})>")

    def _declare(self, unknown: _Unknown) -> ir.Value:
        b = self.b
        types = b._value_types(unknown)
        location = self.found.samples(unknown.repetition)[0].op.location
        shape = [b._bounds(unknown)[1], *b.cloner.shape(types, location)]
        op = ir.Operation.create(
            "parc.unknown",
            results=[b._tensor_type(shape, types[0].element_type)],
            attributes={
                "name": ir.StringAttr.get(unknown.name),
                "shape": self._map(0, [e.affine() for e in shape]),
            },
            loc=location,
        )
        return op.results[0]

    def _boundary(self, unknown: _Unknown, step: int, value: ir.Value) -> None:
        at = self.b._position(unknown, StepMap(0, Extent(step)))
        low, extent = self.b._bounds(unknown)
        # Of short sequences the array may not hold the step.
        room = extent + (low - step - 1)
        always = room.constant >= 0 and all(coefficient >= 0 for coefficient, _ in room.terms)
        ir.Operation.create(
            "parc.boundary",
            operands=[self.arrays[unknown], value],
            attributes={
                "domain": self._set("0 == 0" if always else f"{_text(room.affine(), self.b.symbols)} >= 0"),
                "to": self._map(0, [at.offset.affine()]),
                "of": self._map(0, []),
            },
        )

    def _equation(self, group: Group) -> None:
        first = self.found.first[group.repetitions[0]]
        count = self.found.count[group.repetitions[0]]
        location = self.found.samples(group.repetitions[-1])[0].op.location
        last = ir.AffineExpr.get_dim(0) * -1 + count.affine() + (first - 1)
        domain = self._set(f"t - {first} >= 0, {_text(last, self.b.symbols)} >= 0", "t")
        equation = ir.Operation.create(
            "parc.equation",
            attributes={"name": ir.StringAttr.get(self.b.names[id(group)]), "domain": domain},
            regions=1,
            loc=location,
        )
        block = equation.regions[0].blocks.append(ir.IndexType.get(), arg_locs=[location])
        with ir.InsertionPoint(block):
            self.step = block.arguments[0]
            self.local: dict[tuple[int, int], ir.Value] = {}
            self.constants: dict[tuple[tuple[int, int], ...], ir.Value] = {}
            self.tiles: dict[tuple, ir.Value] = {}
            for r in self._in_order(group):
                self._operation(r)
            for r in group.repetitions:
                for (repetition, result), unknowns in self.b.unknowns.items():
                    if repetition == r:
                        for unknown in unknowns:
                            self._write(unknown, self.local[(r, result)])

    def _in_order(self, group: Group) -> list[int]:
        """Producers before users within one step."""
        members = set(group.repetitions)
        order: list[int] = []
        visited: set[int] = set()

        def visit(r: int) -> None:
            if r in visited:
                return
            visited.add(r)
            for read in self.found.reads[r]:
                if isinstance(read, FromStep) and read.repetition in members and self.b._is_local(r, read):
                    visit(read.repetition)
            order.append(r)

        for r in group.repetitions:
            visit(r)
        return order

    def _operation(self, r: int) -> None:
        samples = self.found.samples(r)
        with samples[0].op.location:
            operands = []
            for i, read in enumerate(self.found.reads[r]):
                sources = tuple(n.inputs[i] for n in samples)
                operands.append(self._read(r, read, sources))
            for i, value in enumerate(self.b.cloner.clone([n.op for n in samples], operands)):
                self.local[(r, i)] = value

    def _read(self, r: int, read: Read, sources: Sources) -> ir.Value:
        b = self.b
        if isinstance(read, FromOutside):
            if read.sources[0].root in b.constant_roots:
                return b._reshaped(self._constant(read.sources), read.sources)
            return b._outer(read.sources)
        if isinstance(read, FromSequence):
            return self._slice(read, sources)
        if isinstance(read, FromCounter):
            return build_counter(read, sources, self.step, b.cloner)
        if b._is_local(r, read):
            return b._reshaped(self.local[(read.repetition, read.result)], sources)
        unknown = b._unknown_for(read.repetition, read.result, dict(read.given))
        return b._reshaped(self._tile(self.arrays[unknown], [b._position(unknown, read.at)]), sources)

    def _tile(self, array: ir.Value, at: Sequence[StepMap]) -> ir.Value:
        key = (array, tuple(at))
        if key not in self.tiles:
            type_ = array.type
            tile = ir.RankedTensorType.get(list(type_.shape)[len(at) :], type_.element_type)
            op = ir.Operation.create(
                "parc.read",
                results=[tile],
                operands=[array],
                attributes={"at": self._map(1, [self._expr(m) for m in at])},
            )
            self.tiles[key] = op.results[0]
        return self.tiles[key]

    def _write(self, unknown: _Unknown, value: ir.Value) -> None:
        at = self.b._position(unknown, StepMap(1, Extent(0)))
        ir.Operation.create(
            "parc.write",
            operands=[value, self.arrays[unknown]],
            attributes={"at": self._map(1, [self._expr(at)])},
        )

    def _constant(self, sources: Sources) -> ir.Value:
        """A value that depends on nothing is made inside the body (an empty or zero tensor)."""
        key = tuple(s.root for s in sources)
        if key not in self.constants:
            nodes = [s.node for s in sources]
            inputs = list(zip(*(n.inputs for n in nodes if n is not None), strict=True))
            operands = [self.b._reshaped(self._constant(group), group) for group in inputs]
            self.constants[key] = self.b.cloner.clone([n.op for n in nodes if n is not None], operands)[
                sources[0].result
            ]
        return self.constants[key]

    def _slice(self, read: FromSequence, sources: Sources) -> ir.Value:
        b = self.b
        base, moving = b._sequence(read)
        rest = [d for d in range(len(read.offsets)) if d not in moving]
        final = b.cloner.shape([s.type for s in sources], sources[0].node.op.location)  # type: ignore[union-attr]
        if any(read.offsets[d].factor for d in rest):
            return b._reshaped(self._window(base, read, sources), sources)
        tile = self._tile(base, [read.offsets[d] for d in moving])
        offsets, sizes = [read.offsets[d].offset for d in rest], [read.sizes[d] for d in rest]
        type_ = b._tensor_type(sizes, base.type.element_type)
        if tile.type != type_ or any(o != Extent(0) for o in offsets):
            tile = b.cloner.extract_slice(tile, offsets, sizes, type_)
        return b._reshape(tile, sizes, final) if sizes != final else tile

    def _window(self, base: ir.Value, read: FromSequence, sources: Sources) -> ir.Value:
        """A slice of several steps: `base[factor * t + offset, ...]`, not an affine access of one tile."""
        offsets = []
        for m in read.offsets:
            value = self.b.cloner.index(m.offset)
            if m.factor:
                scaled = arith.muli(self.step, arith.constant(ir.IndexType.get(), m.factor))
                value = arith.addi(scaled, value)
            offsets.append(value)
        dynamic = ir.ShapedType.get_dynamic_size()
        static, sizes = self.b.cloner.mixed(read.sizes)
        type_ = self.b._tensor_type(read.sizes, base.type.element_type)
        return tensor.ExtractSliceOp(
            type_, base, offsets, sizes, [], [dynamic] * len(offsets), static, [1] * len(static)
        ).result


@dataclass
class _Run:
    """Consecutive steps of one repetition in a concatenation, or a single value."""

    sources: list[Source]
    repetition: int | None = None
    first: int = 0
    last: int = 0
    direction: int = 0


def _runs(concat: Node, steps) -> list[_Run]:
    runs: list[_Run] = []
    for source in concat.inputs:
        place = steps.place.get(source.node) if source.node is not None else None
        if place is None:
            runs.append(_Run([source]))
            continue
        repetition, step = place
        run = runs[-1] if runs else None
        if (
            run is not None
            and run.repetition == repetition.index
            and run.sources[0].result == source.result
            and step - run.last in (-1, 1)
            and run.direction in (0, step - run.last)
        ):
            run.direction = step - run.last
            run.sources.append(source)
            run.first, run.last = min(run.first, step), step
        else:
            runs.append(_Run([source], repetition.index, step, step))
    return runs


def _constant_roots(found: Recurrences) -> set[tuple[int, int]]:
    """Roots of the first trace that depend on nothing, tables left out."""
    roots: set[tuple[int, int]] = set()
    for node in found.steps[0].trace.nodes:
        if node in found.steps[0].place or not all(s.root in roots for s in node.inputs):
            continue
        value = node.op.attributes["value"] if node.name == "arith.constant" else None
        if isinstance(value, ir.DenseElementsAttr) and not value.is_splat:
            continue
        roots.update((node.index, i) for i in range(len(node.op.results)))
    return roots


def _same_roots(a: Sources, b: Sources) -> bool:
    return [(s.root, s.type) for s in a] == [(s.root, s.type) for s in b]


def _types_of_results(func: ir.Operation) -> list[ir.Type]:
    return list(ir.FunctionType(func.attributes["function_type"].value).results)


def _unit_groups(rank: int, kept: list[int]) -> list[list[int]]:
    """A reassociation that folds the unit dimensions into the kept ones."""
    if not kept:
        return []
    ends = [*kept[1:], rank]
    groups = [list(range(start, end)) for start, end in zip(kept, ends, strict=True)]
    groups[0] = [*range(kept[0]), *groups[0]]
    return groups


def _text(expr: ir.AffineExpr, symbols: Sequence[str]) -> str:
    """An affine expression of `t` and the symbols as it is written inside an affine set."""
    text = str(expr)
    for i in reversed(range(len(symbols))):
        text = text.replace(f"s{i}", f"%{i}%")
    text = text.replace("d0", "t")
    for i, name in enumerate(symbols):
        text = text.replace(f"%{i}%", name)
    return text
