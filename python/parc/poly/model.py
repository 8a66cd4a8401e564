"""A `parc.system` as isl objects: index sets, domains, access relations, schedules.

Instances live in spaces named after their equation (`cell0[t]`), array elements in spaces named after their array
(`H0[i]`); the system's symbols are isl parameters.  An *element* of an unknown array is one value of its leading
indices: as many as the most detailed access to it uses.  An access with fewer indices touches all elements below it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import islpy as isl
from torch_mlir import ir

from parc.errors import CompileError
from parc.poly.affine import IN, OUT, PARAM, SET, dimension_names, domain_rank, instance_space, to_map, to_set


@dataclass(frozen=True, eq=False)
class Access:
    """One `parc.read`, `parc.write`, or end of a `parc.boundary`."""

    array: str
    relation: isl.Map
    """`{ instance -> element }`, restricted to the domain of the equation or boundary."""
    elements: isl.Set
    """The elements that exist, as far as the array's extents are known.

    Only of the indices that the relation has: an array whose tiles are empty still has elements, all of them empty.
    """
    op: ir.Operation


@dataclass(frozen=True, eq=False)
class Unknown:
    """An array to solve for."""

    name: str
    elements: isl.Set
    """All elements of the array, by its extents."""
    op: ir.Operation
    taken: isl.Set
    """The elements that `parc.array`s take out of the system."""
    storage: isl.Map
    """`{ element -> place }`: elements with the same place share memory; one to one without a `storage` attribute."""
    indices: int
    """How many leading indices every access to it gives, those of results included."""


@dataclass(frozen=True, eq=False)
class Equation:
    """One equation: its instances and what each of them reads and writes."""

    name: str
    domain: isl.Set
    reads: tuple[Access, ...]
    """Reads of unknown arrays: the ones that make dependences."""
    inputs: tuple[Access, ...]
    """Reads of known arrays."""
    writes: tuple[Access, ...]
    time: isl.Map | None
    """`{ instance -> [time vector] }` from the `schedule` attribute, where there is one."""
    owner: isl.Map | None
    """`{ instance -> [worker] }` from the `owner` attribute, where there is one."""
    op: ir.Operation


@dataclass(frozen=True, eq=False)
class Boundary:
    """Given values of an unknown array."""

    name: str
    target: Access
    source: Access
    op: ir.Operation


@dataclass(frozen=True, eq=False)
class System:
    """A whole system; `context` is what is assumed about the symbols (at least that none is negative)."""

    symbols: tuple[str, ...]
    context: isl.Set
    unknowns: tuple[Unknown, ...]
    boundaries: tuple[Boundary, ...]
    equations: tuple[Equation, ...]
    distribute: str
    strategy: str
    why: str
    """Why it was scheduled so; empty where nothing is said."""
    sizes: Mapping[str, int]
    """Sizes for reports: those named when its schedule was chosen; empty where nothing is said."""
    op: ir.Operation

    def equation(self, name: str) -> Equation:
        return next(e for e in self.equations if e.name == name)

    def unknown(self, name: str) -> Unknown:
        return next(u for u in self.unknowns if u.name == name)


def sweep_counters(system: System) -> set[str]:
    """The symbols of a system that count the sweeps around it: the argument of a `parc.iterate`."""
    owners = {s: v.owner for s, v in zip(system.symbols, system.op.operands, strict=True)}
    return {s for s, owner in owners.items() if isinstance(owner, ir.Block) and owner.owner.name == "parc.iterate"}


def systems(module: ir.Module) -> list[ir.Operation]:
    """Every `parc.system` of a module, in order."""
    found: list[ir.Operation] = []

    def visit(op: ir.Operation) -> ir.WalkResult:
        if op.name == "parc.system":
            found.append(op)
        return ir.WalkResult.ADVANCE

    module.operation.walk(visit)
    return found


def build(system: ir.Operation | ir.OpView) -> System:
    """The polyhedral model of a (verified) `parc.system`; CompileError where something in it is not affine."""
    system = system.operation
    symbols = tuple(ir.StringAttr(s).value for s in system.attributes["symbols"])
    return _Builder(system, symbols).build()


def storage_map(elements: isl.Set, storage: ir.AffineMap | None, location: ir.Location | None = None) -> isl.Map:
    """`{ element -> place }` as a `storage` attribute says it; each element has a place of its own when it is None."""
    rank = elements.dim(SET)
    if storage is None or storage.n_dims > rank:
        return isl.Map.identity(elements.get_space().map_from_set()).intersect_domain(elements)
    rest = [ir.AffineExpr.get_dim(d, storage.context) for d in range(storage.n_dims, rank)]
    whole = ir.AffineMap.get(rank, storage.n_symbols, [*storage.results, *rest], storage.context)
    return to_map(whole, elements, elements.get_tuple_name(), location=location)


class _Builder:
    """Collects the members of one system."""

    def __init__(self, system: ir.Operation, symbols: tuple[str, ...]) -> None:
        self.system = system
        self.symbols = symbols
        self.context = self._context()
        self.members = list(system.regions[0].blocks[0].operations)
        self.names = {m.results[0]: _name(m) for m in self._members("parc.unknown")}
        self.takers = [use.owner.operation for use in system.results[0].uses]
        self.counts = self._counts()
        self.ranks = {name: max(counts) for name, counts in self.counts.items()}
        self.elements = {
            _name(m): self._index_set(m.attributes["shape"].value, _name(m), self.ranks[_name(m)], m)
            for m in self._members("parc.unknown")
        }
        self.known_names: dict[ir.Value, str] = {}

    def build(self) -> System:
        equations = tuple(self._equation(op) for op in self._members("parc.equation"))
        boundaries = tuple(self._boundary(i, op) for i, op in enumerate(self._members("parc.boundary")))
        return System(
            symbols=self.symbols,
            context=self.context,
            unknowns=tuple(self._unknown(op) for op in self._members("parc.unknown")),
            boundaries=boundaries,
            equations=equations,
            distribute=_text(self.system, "distribute"),
            strategy=_text(self.system, "strategy"),
            why=_text(self.system, "why"),
            sizes=_sizes(self.system),
            op=self.system,
        )

    def _members(self, kind: str) -> Iterable[ir.Operation]:
        return (m.operation for m in self.members if m.operation.name == kind)

    def _context(self) -> isl.Set:
        context = isl.Set.universe(instance_space(self.symbols, "", ()))
        for i in range(len(self.symbols)):
            context = context.lower_bound_val(PARAM, i, isl.Val(0))
        if "assume" in self.system.attributes:
            attr = self.system.attributes["assume"]
            context = context.intersect(to_set(attr, context.get_space(), self.system.location))
        return context.params()

    def _counts(self) -> dict[str, set[int]]:
        """For each unknown, how many leading indices the accesses to it have; 0 where there are none."""
        counts: dict[str, set[int]] = {name: set() for name in self.names.values()}

        def note(value: ir.Value, map_: ir.AffineMap) -> None:
            if value in self.names:
                counts[self.names[value]].add(len(map_.results))

        for op in self._members("parc.boundary"):
            note(op.operands[0], op.attributes["to"].value)
        for op in self._members("parc.equation"):
            for access in _accesses(op):
                note(_array(access), access.attributes["at"].value)
        for op in self.takers:
            counts[_name(op)].add(len(op.attributes["at"].value.results) if "at" in op.attributes else 0)
        return {name: found or {0} for name, found in counts.items()}

    def _index_set(self, shape: ir.AffineMap, name: str, rank: int, op: ir.Operation) -> isl.Set:
        """`{ name[i0, ...] : 0 <= i_k < shape_k }` for the first `rank` extents."""
        space = instance_space(self.symbols, name, tuple(f"i{i}" for i in range(rank)))
        point = isl.Set.universe(instance_space(self.symbols, "", ())).intersect_params(self.context)
        extents = to_map(shape, point, name, rank, op.location)
        below = isl.Map.universe(extents.range().get_space().map_from_set())
        for i in range(rank):
            below = below.order_gt(IN, i, OUT, i)
        result = extents.apply_range(below).range().intersect(isl.Set.universe(space))
        for i in range(rank):
            result = result.lower_bound_val(SET, i, isl.Val(0))
        return result.coalesce()

    def _unknown(self, op: ir.Operation) -> Unknown:
        name = _name(op)
        elements = self.elements[name]
        taken = isl.Set.empty(elements.get_space())
        for taker in self.takers:
            if _name(taker) == name:
                taken = taken.union(self._taken(taker, name))
        map_ = op.attributes["storage"].value if "storage" in op.attributes else None
        return Unknown(name, elements, op, taken, storage_map(elements, map_, op.location), min(self.counts[name]))

    def _taken(self, op: ir.Operation, name: str) -> isl.Set:
        """The elements that one `parc.array` takes out."""
        if "at" not in op.attributes:
            return self.elements[name]
        nowhere = isl.Set.universe(instance_space(self.symbols, "", ())).intersect_params(self.context)
        return self._tile(to_map(op.attributes["at"].value, nowhere, name, location=op.location), name).range()

    def _domain(self, op: ir.Operation, name: str) -> isl.Set:
        attr = op.attributes["domain"]
        space = instance_space(self.symbols, name, dimension_names(domain_rank(attr), self.symbols))
        return to_set(attr, space, op.location).intersect_params(self.context)

    def _access(self, op: ir.Operation, value: ir.Value, map_: ir.AffineMap, domain: isl.Set) -> Access:
        if value not in self.names:
            name = self.known_names.setdefault(value, _known_name(value, len(self.known_names)))
            elements = self._known_elements(value, name, len(map_.results), op)
            return Access(name, to_map(map_, domain, name, location=op.location), elements, op)
        name = self.names[value]
        relation = self._tile(to_map(map_, domain, name, location=op.location), name)
        return Access(name, relation, self.elements[name], op)

    def _tile(self, relation: isl.Map, name: str) -> isl.Map:
        """A relation to the first indices of an unknown array as one to all elements below them."""
        given, rank = relation.range_tuple_dim(), self.ranks[name]
        if given == rank:
            return relation
        relation = relation.add_dims(OUT, rank - given).set_tuple_name(OUT, name)
        # Only the free indices are bounded here: that the given ones are inside is checked, not assumed.
        return relation.intersect_range(self.elements[name].eliminate(SET, 0, given))

    def _known_elements(self, value: ir.Value, name: str, rank: int, op: ir.Operation) -> isl.Set:
        """The first `rank` indices of a known array, as far as its type and its argument's `parc.shape` tell."""
        type_ = ir.RankedTensorType(value.type)
        result = isl.Set.universe(
            instance_space(self.symbols, name, tuple(f"i{i}" for i in range(rank)))
        ).intersect_params(self.context)
        for i in range(rank):
            result = result.lower_bound_val(SET, i, isl.Val(0))
            if not type_.is_dynamic_dim(i):
                result = result.upper_bound_val(SET, i, isl.Val(type_.get_dim_size(i) - 1))
        shape = self._argument_shape(value)
        return result.intersect(self._index_set(shape, name, rank, op)) if shape is not None else result

    def _argument_shape(self, value: ir.Value) -> ir.AffineMap | None:
        """`parc.shape` of a function argument, when the function's symbols are those of this system."""
        if not isinstance(value.owner, ir.Block):
            return None
        function = value.owner.owner.operation
        if function.name != "func.func" or "arg_attrs" not in function.attributes:
            return None
        attributes = [ir.DictAttr(a) for a in function.attributes["arg_attrs"]]
        names = [ir.StringAttr(a["parc.name"]).value for a in attributes if _is_symbol(a)]
        position = ir.BlockArgument(value).arg_number
        operands = [ir.BlockArgument(v).arg_number for v in self.system.operands if isinstance(v.owner, ir.Block)]
        if names != list(self.symbols) or operands != [i for i, a in enumerate(attributes) if _is_symbol(a)]:
            return None
        return attributes[position]["parc.shape"].value if "parc.shape" in attributes[position] else None

    def _boundary(self, number: int, op: ir.Operation) -> Boundary:
        if op.operands[1] in self.names:
            raise CompileError(
                f"a boundary gives known values, but its source is the unknown {self.names[op.operands[1]]}",
                op.location,
            )
        name = f"boundary{number}"
        domain = self._domain(op, name)
        target, source = (
            self._access(op, value, op.attributes[key].value, domain)
            for key, value in zip(("to", "of"), op.operands, strict=True)
        )
        return Boundary(name, target, source, op)

    def _equation(self, op: ir.Operation) -> Equation:
        name = _name(op)
        domain = self._domain(op, name)
        accesses = [
            (a.name, _array(a) in self.names, self._access(a, _array(a), a.attributes["at"].value, domain))
            for a in _accesses(op)
        ]
        time, owner = (
            to_map(op.attributes[key].value, domain, "", location=op.location) if key in op.attributes else None
            for key in ("schedule", "owner")
        )
        return Equation(
            name=name,
            domain=domain,
            reads=tuple(a for kind, unknown, a in accesses if kind == "parc.read" and unknown),
            inputs=tuple(a for kind, unknown, a in accesses if kind == "parc.read" and not unknown),
            writes=tuple(a for kind, _, a in accesses if kind == "parc.write"),
            time=time,
            owner=owner,
            op=op,
        )


def _accesses(equation: ir.Operation) -> list[ir.Operation]:
    operations = (op.operation for op in equation.regions[0].blocks[0].operations)
    return [op for op in operations if op.name in ("parc.read", "parc.write")]


def _array(access: ir.Operation) -> ir.Value:
    return access.operands[1 if access.name == "parc.write" else 0]


def _name(op: ir.Operation) -> str:
    return ir.StringAttr(op.attributes["name"]).value


def _text(op: ir.Operation, key: str) -> str:
    return ir.StringAttr(op.attributes[key]).value if key in op.attributes else ""


def _sizes(op: ir.Operation) -> dict[str, int]:
    if "sizes" not in op.attributes:
        return {}
    return {named.name: ir.IntegerAttr(named.attr).value for named in ir.DictAttr(op.attributes["sizes"])}


def _is_symbol(attributes: ir.DictAttr) -> bool:
    return "parc.kind" in attributes and ir.StringAttr(attributes["parc.kind"]).value == "symbol"


def _known_name(value: ir.Value, number: int) -> str:
    """The name of a known array in messages: that of the function's argument, or a number."""
    function = value.owner.owner.operation if isinstance(value.owner, ir.Block) else None
    if function is None or function.name != "func.func":
        return f"known{number}"
    position = ir.BlockArgument(value).arg_number
    attributes = ir.DictAttr(function.attributes["arg_attrs"][position]) if "arg_attrs" in function.attributes else {}
    return ir.StringAttr(attributes["parc.name"]).value if "parc.name" in attributes else f"arg{position}"
