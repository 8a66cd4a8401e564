"""Writes one `parc.system`: its unknowns, boundaries and equations."""

from collections.abc import Sequence

from torch_mlir import ir
from torch_mlir.dialects import arith, tensor

from parc.recurrence.counters import FromCounter, build_counter
from parc.recurrence.fit import Extent, StepMap
from parc.recurrence.groups import Group
from parc.recurrence.layout import reshape, tensor_type
from parc.recurrence.outside import Outside
from parc.recurrence.reads import FromOutside, FromSequence, FromStep, Read
from parc.recurrence.trace import Root
from parc.recurrence.unknowns import Sources, Unknown


def write_system(
    outside: Outside, groups: list[Group], symbols: Sequence[str], constants: set[Root]
) -> dict[Unknown, ir.Value]:
    """Write the system of the groups' equations at the current insertion point; the solved arrays.

    `constants` are the roots of the first trace that an equation makes for itself.
    """
    return _SystemWriter(outside, groups, symbols, constants).write()


class _SystemWriter:
    def __init__(self, outside: Outside, groups: list[Group], symbols: Sequence[str], constants: set[Root]) -> None:
        self.outside = outside
        self.unknowns = outside.unknowns
        self.cloner = outside.cloner
        self.found = outside.found
        self.groups = groups
        self.symbols = list(symbols)
        self.constants = constants
        self.arrays: dict[Unknown, ir.Value] = {}

    def write(self) -> dict[Unknown, ir.Value]:
        self._prepare_reads()
        unknowns = [u for group in self.groups for u in self.unknowns.of_group(group)]
        given = {u: {step: self.outside.without_units(s, u) for step, s in u.given.items()} for u in unknowns}
        system = ir.Operation.create(
            "parc.system",
            results=[ir.Type.parse("!parc.solution")],
            operands=self.cloner.symbols,
            attributes={"symbols": ir.ArrayAttr.get([ir.StringAttr.get(s) for s in self.symbols])},
            regions=1,
        )
        with ir.InsertionPoint(system.regions[0].blocks.append()):
            for unknown in unknowns:
                self.arrays[unknown] = self._declare(unknown)
            for unknown in unknowns:
                for step, value in given[unknown].items():
                    self._boundary(unknown, step, value)
            for group in self.groups:
                writer = _EquationWriter(self, group)
                writer.write()
        return {unknown: self._result(system, unknown) for unknown in unknowns}

    def _prepare_reads(self) -> None:
        """Everything that the system reads from outside is computed before it."""
        for group in self.groups:
            for read in (read for r in group.repetitions for read in self.found.reads[r]):
                if isinstance(read, FromOutside) and read.sources[0].root not in self.constants:
                    self.outside.value(read.sources)
                elif isinstance(read, FromSequence):
                    self.outside.sequence(read)
                elif isinstance(read, FromStep) and self.unknowns.group_of[read.repetition].level < group.level:
                    self.outside.solve(self.unknowns.group_of[read.repetition].level)

    def array(self, unknown: Unknown) -> ir.Value:
        """An array of this system, or one that a system before it solved."""
        if unknown in self.arrays:
            return self.arrays[unknown]
        return self.outside.solve(self.unknowns.group_of[unknown.repetition].level)[unknown]

    def _result(self, system: ir.Operation, unknown: Unknown) -> ir.Value:
        return ir.Operation.create(
            "parc.array",
            results=[self.arrays[unknown].type],
            operands=[system.results[0]],
            attributes={"name": ir.StringAttr.get(unknown.name)},
        ).results[0]

    def _declare(self, unknown: Unknown) -> ir.Value:
        types = self.unknowns.value_types(unknown)
        location = self.found.samples(unknown.repetition)[0].op.location
        shape = [self.unknowns.bounds(unknown)[1], *self.cloner.shape(types, location)]
        return ir.Operation.create(
            "parc.unknown",
            results=[tensor_type(shape, types[0].element_type)],
            attributes={"name": ir.StringAttr.get(unknown.name), "shape": self.map(0, [e.affine() for e in shape])},
            loc=location,
        ).results[0]

    def _boundary(self, unknown: Unknown, step: int, value: ir.Value) -> None:
        at = self.unknowns.position(unknown, StepMap(0, Extent(step)))
        low, extent = self.unknowns.bounds(unknown)
        # Of short sequences the array may not hold the step.
        room = extent + (low - step - 1)
        always = room.constant >= 0 and all(coefficient >= 0 for coefficient, _ in room.terms)
        ir.Operation.create(
            "parc.boundary",
            operands=[self.arrays[unknown], value],
            attributes={
                "domain": self.set("0 == 0" if always else f"{_text(room.affine(), self.symbols)} >= 0"),
                "to": self.map(0, [at.offset.affine()]),
                "of": self.map(0, []),
            },
        )

    def map(self, dims: int, exprs: Sequence[ir.AffineExpr]) -> ir.AffineMapAttr:
        """An affine map of the system's symbols."""
        return ir.AffineMapAttr.get(ir.AffineMap.get(dims, len(self.symbols), list(exprs)))

    def access(self, at: Sequence[StepMap]) -> ir.AffineMapAttr:
        """The access map of a read or write."""
        return self.map(1, [ir.AffineExpr.get_dim(0) * m.factor + m.offset.affine() for m in at])

    def set(self, text: str, dims: str = "") -> ir.Attribute:
        """An affine set of the system's symbols."""
        return ir.Attribute.parse(f"affine_set<({dims})[{', '.join(self.symbols)}] : ({text})>")


class _EquationWriter:
    """Writes the equation of one group."""

    def __init__(self, system: _SystemWriter, group: Group) -> None:
        self.system = system
        self.outside = system.outside
        self.cloner = system.cloner
        self.found = system.found
        self.group = group
        self.local: dict[Root, ir.Value] = {}
        self.made: dict[tuple[Root, ...], ir.Value] = {}
        self.tiles: dict[tuple[ir.Value, tuple[StepMap, ...]], ir.Value] = {}

    def write(self) -> None:
        group, found, system = self.group, self.found, self.system
        first, count = found.first[group.repetitions[0]], found.count[group.repetitions[0]]
        location = found.samples(group.repetitions[-1])[0].op.location
        last = ir.AffineExpr.get_dim(0) * -1 + count.affine() + (first - 1)
        equation = ir.Operation.create(
            "parc.equation",
            attributes={
                "name": ir.StringAttr.get(system.unknowns.name_of(group)),
                "domain": system.set(f"t - {first} >= 0, {_text(last, system.symbols)} >= 0", "t"),
            },
            regions=1,
            loc=location,
        )
        block = equation.regions[0].blocks.append(ir.IndexType.get(), arg_locs=[location])
        self.step = block.arguments[0]
        with ir.InsertionPoint(block):
            for r in self._in_order():
                self._operation(r)
            for unknown in system.unknowns.of_group(group):
                self._write(unknown)

    def _in_order(self) -> list[int]:
        """Producers before users within one step."""
        members = set(self.group.repetitions)
        order: list[int] = []
        visited: set[int] = set()

        def visit(r: int) -> None:
            if r in visited:
                return
            visited.add(r)
            for read in self.found.reads[r]:
                if isinstance(read, FromStep) and read.repetition in members and self._is_local(r, read):
                    visit(read.repetition)
            order.append(r)

        for r in self.group.repetitions:
            visit(r)
        return order

    def _is_local(self, r: int, read: FromStep) -> bool:
        return self.system.unknowns.is_local(r, read)

    def _operation(self, r: int) -> None:
        samples = self.found.samples(r)
        with samples[0].op.location:
            operands = [
                self._read(r, read, tuple(n.inputs[i] for n in samples)) for i, read in enumerate(self.found.reads[r])
            ]
            for i, value in enumerate(self.cloner.clone([n.op for n in samples], operands)):
                self.local[(r, i)] = value

    def _read(self, r: int, read: Read, sources: Sources) -> ir.Value:
        if isinstance(read, FromOutside):
            if read.sources[0].root in self.system.constants:
                return self.outside.reshaped(self._constant(read.sources), read.sources)
            return self.outside.value(read.sources)
        if isinstance(read, FromSequence):
            return self._slice(read, sources)
        if isinstance(read, FromCounter):
            return build_counter(read, sources, self.step, self.cloner)
        if self._is_local(r, read):
            return self.outside.reshaped(self.local[(read.repetition, read.result)], sources)
        unknown = self.system.unknowns.find(read.repetition, read.result, dict(read.given))
        position = self.system.unknowns.position(unknown, read.at)
        return self.outside.reshaped(self._tile(self.system.array(unknown), (position,)), sources)

    def _tile(self, array: ir.Value, at: tuple[StepMap, ...]) -> ir.Value:
        if (array, at) not in self.tiles:
            tile = ir.RankedTensorType.get(list(array.type.shape)[len(at) :], array.type.element_type)
            self.tiles[(array, at)] = ir.Operation.create(
                "parc.read", results=[tile], operands=[array], attributes={"at": self.system.access(at)}
            ).results[0]
        return self.tiles[(array, at)]

    def _write(self, unknown: Unknown) -> None:
        at = self.system.unknowns.position(unknown, StepMap(1, Extent(0)))
        ir.Operation.create(
            "parc.write",
            operands=[self.local[(unknown.repetition, unknown.result)], self.system.arrays[unknown]],
            attributes={"at": self.system.access([at])},
        )

    def _constant(self, sources: Sources) -> ir.Value:
        """A value that depends on nothing is made inside the body (an empty or zero tensor)."""
        key = tuple(s.root for s in sources)
        if key not in self.made:
            nodes = [s.node for s in sources if s.node is not None]
            inputs = list(zip(*(n.inputs for n in nodes), strict=True))
            operands = [self.outside.reshaped(self._constant(group), group) for group in inputs]
            self.made[key] = self.cloner.clone([n.op for n in nodes], operands)[sources[0].result]
        return self.made[key]

    def _slice(self, read: FromSequence, sources: Sources) -> ir.Value:
        base, moving = self.outside.sequence(read)
        rest = [d for d in range(len(read.offsets)) if d not in moving]
        if any(read.offsets[d].factor for d in rest):
            return self.outside.reshaped(self._window(base, read), sources)
        final = self.cloner.shape([s.type for s in sources], ir.Location.current)
        tile = self._tile(base, tuple(read.offsets[d] for d in moving))
        offsets, sizes = [read.offsets[d].offset for d in rest], [read.sizes[d] for d in rest]
        type_ = tensor_type(sizes, base.type.element_type)
        if tile.type != type_ or any(o != Extent(0) for o in offsets):
            tile = self.cloner.extract_slice(tile, offsets, sizes, type_)
        return reshape(self.cloner, tile, sizes, final) if sizes != final else tile

    def _window(self, base: ir.Value, read: FromSequence) -> ir.Value:
        """A slice of several steps: `base[factor * t + offset, ...]`, not an affine access of one tile."""
        offsets = []
        for m in read.offsets:
            value = self.cloner.index(m.offset)
            if m.factor:
                value = arith.addi(arith.muli(self.step, arith.constant(ir.IndexType.get(), m.factor)), value)
            offsets.append(value)
        static, sizes = self.cloner.mixed(read.sizes)
        type_ = tensor_type(read.sizes, base.type.element_type)
        dynamic = [ir.ShapedType.get_dynamic_size()] * len(offsets)
        return tensor.ExtractSliceOp(type_, base, offsets, sizes, [], dynamic, static, [1] * len(static)).result


def _text(expr: ir.AffineExpr, symbols: Sequence[str]) -> str:
    """An affine expression of `t` and the symbols as it is written inside an affine set."""
    text = str(expr)
    for i in reversed(range(len(symbols))):
        text = text.replace(f"s{i}", f"%{i}%")
    text = text.replace("d0", "t")
    for i, name in enumerate(symbols):
        text = text.replace(f"%{i}%", name)
    return text
