"""How the code around a program's systems follows time: which dimension of each tensor the steps run along.

A value is *along* time when its part for some steps follows from the same steps of other values, at the *end* when it
follows from the last states, and else the same in every chunk.  What fits none of these is refused, with its place.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch_mlir import ir
from torch_mlir.dialects import linalg

from parc.chunks.systems import NoChunksError, States, known_axis, states
from parc.codegen.elements import splat
from parc.codegen.extents import mixed
from parc.codegen.irtools import captured_values
from parc.codegen.sizes import Size, affine_of
from parc.poly.model import System

_SIZED = ("tensor.empty", "tensor.extract_slice", "tensor.expand_shape", "tensor.dim", "tensor.splat")
"""What may take a size that depends on the number of steps."""


@dataclass(frozen=True)
class Along:
    """Dimension `axis` holds the steps, with others behind them where it was collapsed: its extent is `extent`."""

    axis: int
    extent: ir.AffineExpr | None


@dataclass(frozen=True)
class End:
    """What follows from the last step."""


Role = Along | End | None


class Follower:
    """Follows time through a function's block, operation by operation."""

    def __init__(self, function: ir.Operation, symbol: int, systems: Mapping[ir.Operation, System]) -> None:
        self._symbol = ir.AffineExpr.get_symbol(symbol)
        self._position = symbol
        block = function.regions[0].blocks[0]
        attributes = [ir.DictAttr(a) for a in function.attributes["arg_attrs"]]
        arguments = list(zip(block.arguments, attributes, strict=True))
        symbols = [a for a, d in arguments if "parc.kind" in d and ir.StringAttr(d["parc.kind"]).value == "symbol"]
        self._positions = {value: i for i, value in enumerate(symbols)}
        self._sized: set[ir.Value] = {symbols[symbol]}
        self._systems = systems
        self.states: dict[ir.Operation, dict[str, States]] = {}
        self._arrays: dict[ir.Value, States] = {}
        self._roles: dict[ir.Value, Role] = {}
        for argument, dictionary in arguments:
            if "parc.shape" in dictionary:
                self._roles[argument] = self._of_shape(ir.AffineMapAttr(dictionary["parc.shape"]).value, function)
        for op in block.operations:
            if op.operation.name != "func.return":
                self._visit(op.operation)

    def role(self, value: ir.Value) -> Role:
        """How a value follows time."""
        if value in self._arrays:
            raise NoChunksError("the states of all steps, the given ones too, are a result", value.owner.location)
        return self._roles.get(value)

    def _of_shape(self, shape: ir.AffineMap, function: ir.Operation) -> Role:
        moving = [d for d, e in enumerate(shape.results) if f"s{self._position}" in str(e)]
        if not moving:
            return None
        if len(moving) > 1 or shape.results[moving[0]] != self._symbol:
            raise NoChunksError(f"an input of shape {shape} does not have one element for each step", function.location)
        return Along(moving[0], self._symbol)

    def _visit(self, op: ir.Operation) -> None:
        if op.name == "parc.system":
            self._system(op)
            return
        if op.name == "parc.array":
            self._array(op)
            return
        captured = captured_values(op)
        if any(v in self._sized for v in captured):
            if all(isinstance(r.type, ir.IndexType) for r in op.results):
                self._sized.update(op.results)
            elif op.name not in _SIZED:
                raise NoChunksError("what is computed depends on the number of steps", op.location)
        if any(v in self._arrays for v in captured):
            self._slice_of_states(op)
        elif op.name == "tensor.empty":
            self._roles[op.results[0]] = self._empty(op)
        elif op.name == "tensor.dim":
            if isinstance(self._roles.get(op.operands[0]), Along):
                self._sized.update(op.results)
        elif roles := [r for v in captured if (r := self._roles.get(v)) is not None]:
            role = End() if all(isinstance(r, End) for r in roles) else self._along(op)
            self._roles.update(dict.fromkeys(op.results, role))

    # Systems.

    def _system(self, op: ir.Operation) -> None:
        system = self._systems[op]
        self.states[op] = states(system, system.symbols[self._position])
        for equation in system.equations:
            block = equation.op.regions[0].blocks[0]
            if any(list(a.uses) for a in block.arguments):
                raise NoChunksError(f"{equation.name} depends on the number of the step", equation.op.location)
            reads = {a.op: a for a in equation.inputs}
            for member in (o.operation for o in block.operations):
                values = [v for v in captured_values(member) if v in self._roles or v in self._sized]
                axis = known_axis(reads[member], self._position) if member in reads else None
                for value in values:
                    role = self._roles.get(value)
                    fits = value not in self._sized and (role.axis if isinstance(role, Along) else None) == axis
                    if not fits or isinstance(role, End):
                        raise NoChunksError("a step needs more of a value than its own step of it", member.location)
        for boundary in system.boundaries:
            if self._roles.get(boundary.op.operands[1]) is not None:
                raise NoChunksError("an initial state depends on the steps", boundary.op.location)

    def _array(self, op: ir.Operation) -> None:
        array = self.states[op.operands[0].owner.operation][ir.StringAttr(op.attributes["name"]).value]
        if array.lead:
            self._arrays[op.results[0]] = array
        else:
            self._roles[op.results[0]] = Along(0, self._symbol)

    def _slice_of_states(self, op: ir.Operation) -> None:
        """All steps without the given states, or one of the last states."""
        if op.name != "tensor.extract_slice":
            raise NoChunksError("the states of all steps, the given ones too, are used together", op.location)
        array = self._arrays[op.operands[0]]
        offset, size = self._affine(mixed(op, "offsets")[0]), self._affine(mixed(op, "sizes")[0])
        kept = _kept_dimensions(op)
        one = ir.AffineExpr.get_constant(1)
        if mixed(op, "strides")[0] == 1 and offset is not None:
            if offset == ir.AffineExpr.get_constant(array.lead) and size == self._symbol and 0 in kept:
                self._roles[op.results[0]] = Along(kept.index(0), self._symbol)
                return
            if size == one and any(offset == self._symbol + k for k in range(array.lead)):
                self._roles[op.results[0]] = End()
                return
        raise NoChunksError("some of the states are used, but neither all steps nor the last one", op.location)

    # Code around them.

    def _affine(self, size: Size) -> ir.AffineExpr | None:
        return affine_of(size, self._positions) if isinstance(size, ir.Value) else ir.AffineExpr.get_constant(size)

    def _empty(self, op: ir.Operation) -> Role:
        sizes = iter(op.operands)
        type_ = op.results[0].type
        extents = [next(sizes) if type_.is_dynamic_dim(d) else None for d in range(type_.rank)]
        moving = [d for d, v in enumerate(extents) if v in self._sized]
        if len(moving) > 1:
            raise NoChunksError("a value has several elements for each pair of steps", op.location)
        return Along(moving[0], affine_of(extents[moving[0]], self._positions)) if moving else None

    def _along(self, op: ir.Operation) -> Role:
        """The role of the results of an operation that takes values along time."""
        role: Role = None
        if op.name.startswith("linalg."):
            role = self._structured(op)
        elif op.name == "tensor.collapse_shape":
            role = self._collapsed(op)
        elif op.name == "tensor.expand_shape":
            role = self._expanded(op)
        elif op.name == "tensor.extract_slice":
            role = self._slice(op)
        elif op.name == "tensor.concat":
            roles = {self._roles.get(v) for v in op.operands}
            (role, *others) = roles
            if others or not isinstance(role, Along) or role.axis == ir.IntegerAttr(op.attributes["dim"]).value:
                role = None
        elif op.name == "tensor.cast" or op.name.startswith(("arith.", "math.")):
            roles = {self._roles.get(v) for v in op.operands if splat(v) is None}
            role = roles.pop() if len(roles) == 1 else None
        if role is None:
            raise NoChunksError(f"'{op.name}' takes steps together, or counts them", op.location)
        return role

    def _structured(self, op: ir.Operation) -> Role:
        maps = [m.value for m in linalg.get_indexing_maps(op)]
        loops: set[int] = set()
        # Loops over the same extent, whichever operand says it.
        extents: list[ir.AffineExpr] = []
        for value, map_ in zip(op.operands, maps, strict=True):
            role = self._roles.get(value)
            if isinstance(role, End):
                return None
            if role is not None:
                expr = map_.results[role.axis].maybe_downcast()
                if not isinstance(expr, ir.AffineDimExpr):
                    return None
                loops.add(expr.position)
                extents += [role.extent] if role.extent is not None else []
        inner = captured_values(op)[len(op.operands) :]
        if len(loops) != 1 or any(self._roles.get(v) is not None for v in inner):
            return None
        loop = ir.AffineExpr.get_dim(loops.pop())
        for value, map_ in zip(op.operands, maps, strict=True):
            role = self._roles.get(value)
            uses = [d for d, e in enumerate(map_.results) if str(loop) in str(e)]
            if uses != ([role.axis] if isinstance(role, Along) else []):
                return None
        for child in op.regions[0].blocks[0].operations:
            if child.operation.name == "linalg.index" and loop == ir.AffineExpr.get_dim(child.attributes["dim"].value):
                return None
        results = {tuple(d for d, e in enumerate(m.results) if e == loop) for m in maps[-len(op.results) :]}
        axes = results.pop() if len(results) == 1 else ()
        return Along(axes[0], extents[0] if extents else None) if len(axes) == 1 else None

    def _collapsed(self, op: ir.Operation) -> Role:
        role, source = self._roles[op.operands[0]], op.operands[0].type
        assert isinstance(role, Along)
        for position, group in enumerate([d.value for d in g] for g in op.attributes["reassociation"]):
            if role.axis in group:
                before = group[: group.index(role.axis)]
                if any(source.is_dynamic_dim(d) or source.shape[d] != 1 for d in before):
                    return None
                return Along(position, role.extent if len(group) == len(before) + 1 else None)
        return None

    def _expanded(self, op: ir.Operation) -> Role:
        role, result = self._roles[op.operands[0]], op.results[0].type
        assert isinstance(role, Along)
        sizes = iter(list(op.operands)[1:])
        extents = [next(sizes) if result.is_dynamic_dim(d) else None for d in range(result.rank)]
        group = [d.value for d in list(op.attributes["reassociation"])[role.axis]]
        for d in group:
            if extents[d] in self._sized:
                return Along(d, affine_of(extents[d], self._positions))
            if result.is_dynamic_dim(d) or result.shape[d] != 1:
                break
        return None

    def _slice(self, op: ir.Operation) -> Role:
        role = self._roles[op.operands[0]]
        assert isinstance(role, Along)
        offset, size = (self._affine(mixed(op, key)[role.axis]) for key in ("offsets", "sizes"))
        kept = _kept_dimensions(op)
        if role.extent is None or offset is None or mixed(op, "strides")[role.axis] != 1:
            return None
        if offset == ir.AffineExpr.get_constant(0) and size == role.extent and role.axis in kept:
            return Along(kept.index(role.axis), role.extent)
        last = offset == role.extent - 1 and size == ir.AffineExpr.get_constant(1)
        return End() if last and role.extent == self._symbol else None


def _kept_dimensions(op: ir.Operation) -> list[int]:
    """The dimensions of a slice that its type keeps: of unit ones as many fewer, the first, as its rank is less."""
    sizes = list(op.attributes["static_sizes"])
    surplus, kept = len(sizes) - op.results[0].type.rank, []
    for d, size in enumerate(sizes):
        if size == 1 and surplus:
            surplus -= 1
        else:
            kept.append(d)
    return kept


def follow(function: ir.Operation, symbol: int, systems: Sequence[System]) -> Follower:
    """How the values of a function follow time; NoChunksError where some do not."""
    return Follower(function, symbol, {system.op: system for system in systems})
