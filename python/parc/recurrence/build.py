"""Writes `@main` with its `parc.system`s from what the traces have in common."""

from collections.abc import Sequence

from torch_mlir import ir

from parc.recurrence.equations import write_system
from parc.recurrence.groups import find_groups
from parc.recurrence.outside import Outside
from parc.recurrence.reads import Recurrences
from parc.recurrence.symbolic import SymbolicCloner
from parc.recurrence.trace import Root
from parc.recurrence.unknowns import Unknown, Unknowns


def build_main(found: Recurrences, symbols: Sequence[str]) -> ir.Operation:
    """A `func.func @main` at the current insertion point, equivalent to every trace at its sizes."""
    return _Builder(found, symbols).build()


class _Builder:
    def __init__(self, found: Recurrences, symbols: Sequence[str]) -> None:
        self.found = found
        self.symbols = list(symbols)
        self.traces = [s.trace for s in found.steps]
        self.groups = find_groups(found)
        self.solved: dict[int, dict[Unknown, ir.Value]] = {}

    def build(self) -> ir.Operation:
        location = self.traces[0].func.location
        shapes = SymbolicCloner(self.found.sizes, [])
        arguments = list(zip(*([v.type for v in t.arguments] for t in self.traces), strict=True))
        results = list(zip(*(_result_types(t.func) for t in self.traces), strict=True))
        types = [ir.IndexType.get()] * len(self.symbols) + [shapes.type(group, location) for group in arguments]
        result_types = [shapes.type(group, location) for group in results]
        func = ir.Operation.create(
            "func.func",
            attributes={
                "sym_name": ir.StringAttr.get("main"),
                "function_type": ir.TypeAttr.get(ir.FunctionType.get(types, result_types)),
                "arg_attrs": ir.ArrayAttr.get([*self._symbol_attributes(), *self._attributes("arg_attrs", arguments)]),
                "res_attrs": ir.ArrayAttr.get(self._attributes("res_attrs", results)),
            },
            regions=1,
            loc=location,
        )
        block = func.regions[0].blocks.append(*types, arg_locs=[location] * len(types))
        values = list(block.arguments)
        count = len(self.symbols)
        self.outside = Outside(
            self.found,
            Unknowns(self.found, self.groups),
            SymbolicCloner(self.found.sizes, values[:count]),
            values[count:],
            self._solve,
        )
        with ir.InsertionPoint(block), location:
            returned = [self.outside.value(sources) for sources in zip(*(t.results for t in self.traces), strict=True)]
            ir.Operation.create("func.return", operands=returned)
        return func

    def _solve(self, level: int) -> dict[Unknown, ir.Value]:
        if level not in self.solved:
            groups = [g for g in self.groups if g.level == level]
            self.solved[level] = write_system(self.outside, groups, self.symbols, _constant_roots(self.found))
        return self.solved[level]

    def _symbol_attributes(self) -> list[ir.DictAttr]:
        kind = ir.StringAttr.get("symbol")
        return [ir.DictAttr.get({"parc.kind": kind, "parc.name": ir.StringAttr.get(name)}) for name in self.symbols]

    def _attributes(self, key: str, types: Sequence[Sequence[ir.Type]]) -> list[ir.DictAttr]:
        """The attributes of the first trace's arguments or results, and their shapes."""
        old = self.traces[0].func.attributes
        shapes = SymbolicCloner(self.found.sizes, [])
        found = []
        for i, group in enumerate(types):
            attributes = {a.name: a.attr for a in old[key][i]} if key in old else {}
            if isinstance(group[0], ir.RankedTensorType):
                extents = shapes.shape(group, self.traces[0].func.location)
                map_ = ir.AffineMap.get(0, len(self.symbols), [e.affine() for e in extents])
                attributes["parc.shape"] = ir.AffineMapAttr.get(map_)
            found.append(ir.DictAttr.get(attributes))
        return found


def _result_types(func: ir.Operation) -> list[ir.Type]:
    return list(ir.FunctionType(func.attributes["function_type"].value).results)


def _constant_roots(found: Recurrences) -> set[Root]:
    """Roots of the first trace that depend on nothing, tables left out."""
    roots: set[Root] = set()
    for node in found.steps[0].trace.nodes:
        if node in found.steps[0].place or not all(s.root in roots for s in node.inputs):
            continue
        value = node.op.attributes["value"] if node.name == "arith.constant" else None
        if isinstance(value, ir.DenseElementsAttr) and not value.is_splat:
            continue
        roots.update((node.index, i) for i in range(len(node.op.results)))
    return roots
