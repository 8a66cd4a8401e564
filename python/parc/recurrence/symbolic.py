"""Clones operations from static traces into code with symbolic sizes.

Every function takes one operation (value, type) per trace, all instances of the same thing, and
makes the one whose sizes are functions of the symbols.
"""

from collections.abc import Sequence

from torch_mlir import ir
from torch_mlir.dialects import arith, linalg, tensor

from parc.errors import CompileError
from parc.recurrence.fit import Extent, fit


class SymbolicCloner:
    """Builds symbolic copies at the current insertion point."""

    def __init__(self, sizes: Sequence[tuple[int, ...]], symbols: Sequence[ir.Value]) -> None:
        self.sizes = sizes
        self.symbols = symbols

    def extent(self, values: Sequence[int], location: ir.Location, what: str) -> Extent:
        """The size that takes these values in the traces."""
        found = fit(values, self.sizes)
        if found is None:
            raise CompileError(
                f"{what} is {', '.join(map(str, values))} at sizes "
                f"{', '.join(map(str, self.sizes))}: no affine function of the dynamic sizes gives that. "
                "Make one of the sizes static (dynamic_shapes)",
                location,
            )
        return found

    def index(self, extent: Extent) -> ir.Value:
        """The extent as an `index` value."""
        type_ = ir.IndexType.get()

        def constant(value: int) -> ir.Value:
            return arith.constant(type_, value)

        total: ir.Value | None = None
        for coefficient, symbols in extent.terms:
            term = self.symbols[symbols[0]]
            for s in symbols[1:]:
                term = arith.muli(term, self.symbols[s])
            if coefficient != 1:
                term = arith.muli(term, constant(coefficient))
            total = term if total is None else arith.addi(total, term)
        if total is None:
            return constant(extent.at([0] * len(self.symbols)))
        if extent.constant:
            total = arith.addi(total, constant(extent.constant))
        return total if extent.divisor == 1 else arith.floordivsi(total, constant(extent.divisor))

    def mixed(self, extents: Sequence[Extent]) -> tuple[list[int], list[ir.Value]]:
        """Static sizes (dynamic ones marked) and the values of the dynamic ones."""
        dynamic = ir.ShapedType.get_dynamic_size()
        static = [e.at([0] * len(self.symbols)) if e.is_constant else dynamic for e in extents]
        return static, [self.index(e) for e in extents if not e.is_constant]

    def shape(self, types: Sequence[ir.Type], location: ir.Location) -> list[Extent]:
        """The extents of a ranked tensor."""
        if len({t.rank for t in types}) > 1:
            raise CompileError(f"a tensor's rank depends on the sizes: {', '.join(map(str, types))}", location)
        return [
            self.extent(values, location, f"extent {d} of a tensor")
            for d, values in enumerate(zip(*(t.shape for t in types), strict=True))
        ]

    def type(self, types: Sequence[ir.Type], location: ir.Location) -> ir.Type:
        """The tensor type with every size that varies made dynamic; other types must agree."""
        if not isinstance(types[0], ir.RankedTensorType):
            if len(set(types)) > 1:
                raise CompileError(f"a type depends on the sizes: {', '.join(map(str, types))}", location)
            return types[0]
        dynamic = ir.ShapedType.get_dynamic_size()
        static = [e.constant if e.is_constant else dynamic for e in self.shape(types, location)]
        return ir.RankedTensorType.get(static, types[0].element_type, loc=location)

    def clone(self, ops: Sequence[ir.Operation], operands: Sequence[ir.Value]) -> list[ir.Value]:
        """The symbolic copy of one operation; `operands` are its operands, then what its regions capture."""
        op = ops[0]
        if len({o.name for o in ops}) > 1 or len({len(o.operands) for o in ops}) > 1:
            raise CompileError("what runs here depends on the sizes", op.location)
        special = getattr(self, "_" + op.name.replace(".", "_"), None)
        with op.location:
            if special is not None:
                return [special(ops, list(operands))]
            return self._any(ops, list(operands))

    def _types(self, ops: Sequence[ir.Operation], result: int = 0) -> ir.Type:
        return self.type([o.results[result].type for o in ops], ops[0].location)

    def _attribute_extents(self, ops: Sequence[ir.Operation], name: str) -> list[Extent]:
        columns = zip(*(tuple(o.attributes[name]) for o in ops), strict=True)
        return [self.extent(values, ops[0].location, f"`{name}` of '{ops[0].name}'") for values in columns]

    def _any(self, ops: Sequence[ir.Operation], operands: list[ir.Value]) -> list[ir.Value]:
        op = ops[0]
        for name in op.attributes:
            if len({o.attributes[name] for o in ops}) > 1:
                raise CompileError(f"attribute `{name}` of '{op.name}' depends on the sizes", op.location)
        clone = op.clone()
        for i in range(len(op.operands)):
            clone.operands[i] = operands[i]
        for i, result in enumerate(clone.results):
            result.set_type(self._types(ops, i))
        self._connect_captures(ops, clone, operands[len(op.operands) :])
        return list(clone.results)

    def _connect_captures(self, ops: Sequence[ir.Operation], clone: ir.Operation, values: list[ir.Value]) -> None:
        """Point the copied regions at copies of what they capture."""
        if not clone.regions:
            return
        originals = [region_captures(o) for o in ops]
        replacement: dict[ir.Value, ir.Value] = {}
        variables = sum(not is_constant(v) for v in originals[0])
        fresh, counters = iter(values[:variables]), iter(values[variables:])
        for instances in zip(*originals, strict=True):
            with ir.InsertionPoint(clone):
                if is_constant(instances[0]) and len(values) > variables:
                    copies = next(counters)
                elif is_constant(instances[0]):
                    copies = self._arith_constant([v.owner.operation for v in instances], [])
                else:
                    copies = next(fresh)
            replacement[instances[0]] = copies

        def rewire(region: ir.Region) -> None:
            for block in region.blocks:
                for inner in block.operations:
                    for i, value in enumerate(inner.operation.operands):
                        if value in replacement:
                            inner.operation.operands[i] = replacement[value]
                    for nested in inner.operation.regions:
                        rewire(nested)

        for region in clone.regions:
            rewire(region)

    def _tensor_empty(self, ops: Sequence[ir.Operation], operands: list[ir.Value]) -> ir.Value:
        extents = self.shape([o.results[0].type for o in ops], ops[0].location)
        _, dynamic = self.mixed(extents)
        op = ir.Operation.create("tensor.empty", results=[self._types(ops)], operands=dynamic)
        return op.results[0]

    def _tensor_extract_slice(self, ops: Sequence[ir.Operation], operands: list[ir.Value]) -> ir.Value:
        offsets, sizes, strides = (self._attribute_extents(ops, f"static_{k}") for k in ("offsets", "sizes", "strides"))
        return self.extract_slice(operands[0], offsets, sizes, self._types(ops), [s.constant for s in strides])

    def extract_slice(
        self,
        source: ir.Value,
        offsets: Sequence[Extent],
        sizes: Sequence[Extent],
        type_: ir.Type,
        strides: Sequence[int] | None = None,
    ) -> ir.Value:
        """`tensor.extract_slice` with symbolic offsets and sizes."""
        static_offsets, offset_values = self.mixed(offsets)
        static_sizes, size_values = self.mixed(sizes)
        return tensor.ExtractSliceOp(
            type_,
            source,
            offset_values,
            size_values,
            [],
            static_offsets,
            static_sizes,
            list(strides or [1] * len(sizes)),
        ).result

    def _tensor_insert_slice(self, ops: Sequence[ir.Operation], operands: list[ir.Value]) -> ir.Value:
        static_offsets, offset_values = self.mixed(self._attribute_extents(ops, "static_offsets"))
        static_sizes, size_values = self.mixed(self._attribute_extents(ops, "static_sizes"))
        strides = [s.constant for s in self._attribute_extents(ops, "static_strides")]
        return tensor.InsertSliceOp(
            operands[0], operands[1], offset_values, size_values, [], static_offsets, static_sizes, strides
        ).result

    def _tensor_expand_shape(self, ops: Sequence[ir.Operation], operands: list[ir.Value]) -> ir.Value:
        groups = [[d.value for d in g] for g in ops[0].attributes["reassociation"]]
        static, dynamic = self.mixed(self.shape([o.results[0].type for o in ops], ops[0].location))
        return tensor.ExpandShapeOp(self._types(ops), operands[0], groups, dynamic, static).result

    def _tensor_concat(self, ops: Sequence[ir.Operation], operands: list[ir.Value]) -> ir.Value:
        return tensor.ConcatOp(self._types(ops), ops[0].attributes["dim"].value, operands).result

    def _arith_constant(self, ops: Sequence[ir.Operation], operands: list[ir.Value]) -> ir.Value:
        op, type_ = ops[0], self._types(ops)
        values = [o.attributes["value"] for o in ops]
        if len(set(values)) == 1:
            return op.clone().results[0]
        if isinstance(type_, ir.RankedTensorType):
            if not all(isinstance(v, ir.DenseElementsAttr) and v.is_splat for v in values):
                raise CompileError("a constant table depends on the sizes", op.location)
            scalars = [v.get_splat_value() for v in values]
            fill = self._scalar_constant(scalars, type_.element_type, op.location)
            _, dynamic = self.mixed(self.shape([o.results[0].type for o in ops], op.location))
            empty = ir.Operation.create("tensor.empty", results=[type_], operands=dynamic).results[0]
            return linalg.fill(fill, outs=[empty])
        return self._scalar_constant(values, type_, op.location)

    def _scalar_constant(self, values: Sequence[ir.Attribute], type_: ir.Type, location: ir.Location) -> ir.Value:
        """A scalar that is equal in all traces, a size, or (for means) one over a size."""
        if len(set(values)) == 1:
            return ir.Operation.create("arith.constant", results=[type_], attributes={"value": values[0]}).results[0]
        numbers = [v.value for v in values]
        i64 = ir.IntegerType.get_signless(64)
        if isinstance(type_, ir.IndexType):
            return self.index(self.extent(numbers, location, "a constant"))
        if isinstance(type_, ir.IntegerType):
            value = self.index(self.extent(numbers, location, "a constant"))
            return arith.index_cast(type_, value)
        inverse = any(n != round(n) for n in numbers)
        whole = [round(1 / n) if inverse else round(n) for n in numbers]
        extent = self.extent(whole, location, "a constant")
        as_float = arith.sitofp(type_, arith.index_cast(i64, self.index(extent)))
        if not inverse:
            return as_float
        return arith.divf(arith.constant(type_, 1.0), as_float)


def is_constant(value: ir.Value) -> bool:
    """Whether a value is an `arith.constant`."""
    return isinstance(value, ir.OpResult) and value.owner.name == "arith.constant"


def region_captures(op: ir.Operation) -> list[ir.Value]:
    """Values that the regions of an operation use but do not define, in order of first use."""
    inside: set[ir.Value] = set()
    captured: list[ir.Value] = []

    def visit(region: ir.Region) -> None:
        for block in region.blocks:
            inside.update(block.arguments)
            for inner in block.operations:
                for value in inner.operation.operands:
                    if value not in inside and value not in captured:
                        captured.append(value)
                inside.update(inner.operation.results)
                for nested in inner.operation.regions:
                    visit(nested)

    for region in op.regions:
        visit(region)
    return captured
