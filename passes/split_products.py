"""`split-products`: matrix products that need not wait for the recurrence become equations of their own.

A cell multiplies its input and its state by weights.  The product with the input depends on no
earlier step, so it moves to an equation without recurrence, which can run for many steps at
once as one large matrix product; and where a product needs a value that the same step computes
(the reset gate of a GRU), the cell is cut into stages:

    cell[t]:     c = x[t] * W + h[t] * U;  h[t+1] = tanh(c)
  becomes
    cell_in0[t]: p[t] = x[t] * W
    cell[t]:     c = p[t] + h[t] * U;      h[t+1] = tanh(c)

In a wavefront of few rows that is one more wait in each wave, for a product of as few rows. With `inputs=false` the
cells of a stack multiply their inputs themselves, and both weights of a layer stay where it is computed. So does the
first layer, though one product of all steps would do for its input: a wave takes as long as its slowest layer, and
those above have two products as well. Only a product that is larger than theirs still becomes an equation, and so does
the input product of a recurrence alone.

A product of a concatenation, `[x, h] * W`, is first written as `x * W1 + h * W2`.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from math import prod
from typing import ClassVar

from torch_mlir import ir
from torch_mlir.dialects import linalg, tensor

from parc.codegen.irtools import captured_values, clone_with, walk
from parc.passbase import Pass
from parc.poly.affine import dimension_names, domain_rank, from_aff, instance_space, to_map, to_set
from parc.poly.boxes import bounding_box
from parc.recurrence.extents import extents_of

#: Products of a tile with a weight; the tile is the first input (the second of `linalg.matvec`).
_PRODUCTS = {"linalg.matmul": 0, "linalg.vecmat": 0, "linalg.matvec": 1}
_CHEAP = ("arith.constant", "tensor.empty", "linalg.fill")
_VIEWS = ("tensor.extract_slice", "tensor.collapse_shape", "tensor.expand_shape", "tensor.cast", "tensor.concat")


@dataclass
class SplitProducts(Pass):
    """Give input products and the stages of a cell equations of their own."""

    name: ClassVar[str] = "split-products"

    inputs: bool = True
    """Do all products of inputs become equations? If not, cells of stacks keep theirs."""

    def run(self, module: ir.Module) -> None:
        for op in walk(module.operation, "parc.system"):
            split_system(op.operation, self.inputs)


def split_system(system: ir.Operation, inputs: bool = True) -> None:
    """Give the input products and the stages of one system's cells equations of their own."""
    equations = [o.operation for o in system.regions[0].blocks[0].operations if o.operation.name == "parc.equation"]
    for equation in equations:
        _split_concatenations(system, equation)
    cyclic = _recurrent_arrays(equations)
    kept = set() if inputs else _kept_inputs(system, cyclic)
    for equation in equations:
        _Splitter(system, equation, cyclic[equation], kept).run()


def input_products(system: ir.Operation, equation: ir.Operation) -> list[ir.Operation]:
    """The products of what an equation reads with weights, in order."""
    splitter = _Splitter(system, equation, set(), set())
    splitter.is_recurrent = True
    splitter.place()
    return splitter.inputs


def split_into(
    system: ir.Operation, equation: ir.Operation, stages: Iterable[tuple[str, Iterable[ir.Operation]]]
) -> None:
    """Cut an equation in several, each with a suffix of its name and operations of its body, in their order.

    What is read, and what is made of it without computing, is there in each of them.
    """
    splitter = _Splitter(system, equation, set(), set())
    splitter.place()
    repeated = splitter.shared | splitter.repeated
    splitter.emit(
        [_Stage(f"{splitter.label}_{name}", [op for op in ops if op not in repeated]) for name, ops in stages]
    )


def gapless_index(system: ir.Operation, equation: ir.Operation) -> tuple[ir.AffineMap, list[ir.AffineExpr]]:
    """Where arrays of what an equation computes are accessed and how large they are.

    As in its first write, but from 0 on, so that all of their elements are defined.
    """
    write = _named(equation, "parc.write")[0]
    at = ir.AffineMapAttr(write.attributes["at"]).value
    symbols = tuple(ir.StringAttr(s).value for s in system.attributes["symbols"])
    attribute = equation.attributes["domain"]
    space = instance_space(symbols, "", dimension_names(domain_rank(attribute), symbols))
    box = bounding_box(to_map(at, to_set(attribute, space), "").range())
    if box is None:
        shape = ir.AffineMapAttr(write.operands[1].owner.attributes["shape"]).value
        return at, list(shape.results)[: len(at.results)]
    index = [expr - from_aff(lower) for expr, lower in zip(at.results, box.lower, strict=True)]
    return ir.AffineMap.get(at.n_dims, at.n_symbols, index), box.extents()


def _kept_inputs(system: ir.Operation, cyclic: dict[ir.Operation, set[ir.Value]]) -> set[ir.Operation]:
    """The products of inputs that stay in their cells: those of other layers' states, and all that are no larger."""
    products: list[ir.Operation] = []
    for equation, arrays in cyclic.items():
        splitter = _Splitter(system, equation, arrays, set())
        splitter.place()
        products += splitter.inputs
    sizes = {p: prod(p.operands[1 - _PRODUCTS[p.name]].type.shape) for p in products}
    largest = max((sizes[p] for p in products if _reads_unknown(p.operands[_PRODUCTS[p.name]])), default=0)
    return {p for p in products if sizes[p] <= largest}


def _reads_unknown(tile: ir.Value) -> bool:
    """Whether a tile is read, maybe through views, from an array of the system."""
    if isinstance(tile.owner, ir.Block):
        return False
    op = tile.owner.operation
    if op.name == "parc.read":
        array = op.operands[0].owner
        return not isinstance(array, ir.Block) and array.name == "parc.unknown"
    return op.name in _VIEWS and any(_reads_unknown(v) for v in op.operands)


# -- [a, b] * W = a * W1 + b * W2 ------------------------------------------------------------------------------


def _split_concatenations(system: ir.Operation, equation: ir.Operation) -> None:
    for op in list(equation.regions[0].blocks[0].operations):
        product = op.operation
        if product.name not in ("linalg.matmul", "linalg.vecmat"):
            continue
        tile, weight, init = product.operands
        if isinstance(tile.owner, ir.Block) or tile.owner.name != "tensor.concat" or not _is_outside(weight, equation):
            continue
        concat = tile.owner.operation
        if concat.attributes["dim"].value != tile.type.rank - 1:
            continue
        depth = 0
        total = init
        for piece in concat.operands:
            count = piece.type.shape[-1]
            with ir.InsertionPoint(system), product.location:
                rows = _weight_rows(weight, depth, count)
            with ir.InsertionPoint(product), product.location:
                total = _product_like(product, piece, rows, total)
            depth += count
        product.results[0].replace_all_uses_with(total)
        product.erase()
        if not list(concat.results[0].uses):
            concat.erase()


def _weight_rows(weight: ir.Value, start: int, count: int) -> ir.Value:
    columns = weight.type.shape[1]
    type_ = ir.RankedTensorType.get([count, columns], weight.type.element_type)
    return tensor.ExtractSliceOp(type_, weight, [], [], [], [start, 0], [count, columns], [1, 1]).result


def _product_like(product: ir.Operation, tile: ir.Value, weight: ir.Value, init: ir.Value) -> ir.Value:
    clone = product.clone()
    for i, value in enumerate((tile, weight, init)):
        clone.operands[i] = value
    return clone.results[0]


# -- stages ----------------------------------------------------------------------------------------------------


def _recurrent_arrays(equations: list[ir.Operation]) -> dict[ir.Operation, set[ir.Value]]:
    """For each equation, the unknown arrays whose values depend on it: those on a cycle through it."""
    writes = {e: {o.operands[1] for o in _named(e, "parc.write")} for e in equations}
    reads = {e: {o.operands[0] for o in _named(e, "parc.read")} for e in equations}
    users = {e: [u for u in equations if writes[e] & reads[u]] for e in equations}
    result = {}
    for equation in equations:
        reached: set[ir.Operation] = set()
        pending = [equation]
        while pending:
            for user in users[pending.pop()]:
                if user not in reached:
                    reached.add(user)
                    pending.append(user)
        result[equation] = set().union(*(writes[e] for e in reached | {equation}))
    return result


def _named(equation: ir.Operation, name: str) -> list[ir.Operation]:
    return [o.operation for o in equation.regions[0].blocks[0].operations if o.operation.name == name]


def _reduces(op: ir.Operation) -> bool:
    """Whether an operation combines elements of a tile with each other."""
    maps = linalg.get_indexing_maps(op.opview) if op.name.startswith("linalg.") else None
    if maps is None:
        return False
    result = ir.AffineMapAttr(maps[len(maps) - 1]).value
    return result.n_dims > len(result.results)


def _reduces_one(op: ir.Operation) -> bool:
    """Whether an operation reduces one tile to an extremum, a sum or a product along some of its dimensions."""
    return _reduces(op) and len(op.operands) == 2 and not _looks_up(op)


def _looks_up(op: ir.Operation) -> bool:
    """Whether a result that is used depends on indices, as an embedding or an argmax does."""
    if not op.name.startswith("linalg.") or len(op.regions) != 1:
        return False
    *body, end = op.regions[0].blocks[0].operations
    yielded = [v for v, r in zip(end.operation.operands, op.results, strict=True) if list(r.uses)]
    wanted = {v.owner.operation for v in yielded if not isinstance(v.owner, ir.Block)}
    for inner in reversed(body):
        if inner.operation in wanted:
            wanted |= {v.owner.operation for v in inner.operation.operands if not isinstance(v.owner, ir.Block)}
    return any(inner.name in ("linalg.index", "tensor.extract") for inner in wanted)


def _is_outside(value: ir.Value, equation: ir.Operation) -> bool:
    """Whether a value is defined outside the equation's body."""
    block = equation.regions[0].blocks[0]
    return (value.owner if isinstance(value.owner, ir.Block) else value.owner.operation.block) != block


@dataclass
class _Stage:
    """What will be one equation: its operations, in order."""

    name: str
    ops: list[ir.Operation] = field(default_factory=list)


class _Splitter:
    """Cuts one equation into input products and stages."""

    def __init__(
        self, system: ir.Operation, equation: ir.Operation, cyclic: set[ir.Value], kept: set[ir.Operation]
    ) -> None:
        self.system = system
        self.equation = equation
        self.cyclic = cyclic
        self.kept = kept
        self.block = equation.regions[0].blocks[0]
        self.label = ir.StringAttr(equation.attributes["name"]).value
        #: Operations that any stage can repeat for itself: reads, their views, empty and constant tensors.
        self.shared: set[ir.Operation] = set()
        #: Sums along the rows of what is read: a number per row is no tile that a kernel could hand over.
        self.repeated: set[ir.Operation] = set()
        self.level: dict[ir.Operation, int] = {}
        #: Products, and what is computed from one of the same level.
        self.from_product: set[ir.Operation] = set()
        self.inputs: list[ir.Operation] = []
        #: The first level after the look-ups so far.
        self.floor = 0
        self.is_recurrent = any(o.operands[0] in cyclic for o in _named(equation, "parc.read"))

    def place(self) -> None:
        """Find the level of every operation."""
        for op in self.block.operations:
            self._place(op.operation)
        self._sink_kept()

    def run(self) -> None:
        self.place()
        depth = max(self.level.values(), default=0)
        if not self.inputs and depth == 0:
            return
        stages = [_Stage(f"{self.label}_in{i}", [op]) for i, op in enumerate(self.inputs)]
        for level in range(depth + 1):
            name = self.label if level == depth else f"{self.label}_stage{level}"
            ops = [o.operation for o in self.block.operations if self.level.get(o.operation) == level]
            stages.append(_Stage(name, ops))
        self.emit(stages)

    def _place(self, op: ir.Operation) -> None:
        # Scalars are what is computed from the step's number.
        is_cheap = op.name in _CHEAP + _VIEWS or not any(isinstance(v.type, ir.RankedTensorType) for v in op.results)
        is_cheap = is_cheap and op.name != "parc.write" and all(self._is_shared(v) for v in op.operands)
        if op.name == "parc.read" or is_cheap:
            self.shared.add(op)
            return
        if _reduces_one(op) and all(self._is_shared(v) for v in captured_values(op)):
            self.repeated.add(op)
            return
        position = _PRODUCTS.get(op.name)
        if position is not None and _is_outside(op.operands[1 - position], self.equation):
            tile = op.operands[position]
            is_input = self._is_shared(tile) and self._is_zero(op.operands[2]) and not self._reads_cycle(tile)
            if self.is_recurrent and is_input and op not in self.kept:
                self.inputs.append(op)
                return
            waits = 0 if self._is_shared(tile) else 1
            self.level[op] = max(self._value_level(tile) + waits, self._value_level(op.operands[2]), self.floor)
            self.from_product.add(op)
            return
        if _looks_up(op):
            # Alone in its stage, so that kernels do the rest.
            self.level[op] = self.floor = max(self.level.values(), default=-1) + 1
            self.floor += 1
            return
        level = self._operand_level(op)
        products = [o for o in self._owners(op) & self.from_product if self.level[o] == level]
        if products and _reduces(op):
            level += 1  # A kernel has whole sums only after all of its products: a layer norm of gates waits for them.
        elif products:
            self.from_product.add(op)
        self.level[op] = level

    def _sink_kept(self) -> None:
        """Move the kept products, and what is computed from them alone, to the stage that first uses them."""
        free: dict[ir.Operation, None] = {}
        for op in self.level:
            computed = [v for v in captured_values(op) if not self._is_shared(v)]
            follows = bool(computed) and all(v.owner.operation in free for v in computed)
            if op in self.kept or (follows and op.name.startswith("linalg.") and not _reduces(op)):
                free[op] = None
        for op in reversed(free):
            users = [self.level[u] for u in _users(op) if u in self.level]
            self.level[op] = min(users, default=self.level[op])

    def _owners(self, op: ir.Operation) -> set[ir.Operation]:
        """The operations that the operands come from."""
        return {v.owner.operation for v in op.operands if not isinstance(v.owner, ir.Block)}

    def _operand_level(self, op: ir.Operation) -> int:
        lowest = self.floor if op.name.startswith("linalg.") else 0
        return max([lowest, *(self._value_level(v) for v in op.operands)])

    def _value_level(self, value: ir.Value) -> int:
        return 0 if isinstance(value.owner, ir.Block) else self.level.get(value.owner.operation, 0)

    def _is_shared(self, value: ir.Value) -> bool:
        if _is_outside(value, self.equation) or isinstance(value.owner, ir.Block):
            return True
        return value.owner.operation in self.shared

    def _is_zero(self, init: ir.Value) -> bool:
        """A product is moved only when it starts from zero; otherwise its start would be added twice."""
        if isinstance(init.owner, ir.Block) or init.owner.name != "linalg.fill":
            return False
        scalar = init.owner.operands[0]
        if isinstance(scalar.owner, ir.Block) or scalar.owner.name != "arith.constant":
            return False
        return scalar.owner.attributes["value"].value == 0

    def _reads_cycle(self, value: ir.Value) -> bool:
        if isinstance(value.owner, ir.Block):
            return False
        op = value.owner.operation
        if op.name == "parc.read":
            return op.operands[0] in self.cyclic
        return op in self.shared and any(self._reads_cycle(v) for v in op.operands)

    # -- writing the new equations -----------------------------------------------------------------------------

    def emit(self, stages: list[_Stage]) -> None:
        """Replace the equation by its stages."""
        home = {op: i for i, stage in enumerate(stages) for op in stage.ops}
        crossing: dict[ir.Value, ir.Value] = {}
        at, leading = gapless_index(self.system, self.equation)
        for i, stage in enumerate(stages):
            for value in (v for op in stage.ops for v in captured_values(op)):
                owner = None if isinstance(value.owner, ir.Block) else value.owner.operation
                if owner in home and home[owner] < i and value not in crossing:
                    crossing[value] = self._unknown(value, f"{stages[home[owner]].name}_p{len(crossing)}", leading)
        for i, stage in enumerate(stages):
            own = [v for v in crossing if home[v.owner.operation] == i]
            self._emit_stage(stage, crossing, own, ir.AffineMapAttr.get(at))
        self.equation.erase()

    def _unknown(self, value: ir.Value, name: str, leading: list[ir.AffineExpr]) -> ir.Value:
        """An array for a value that one stage hands to a later one; `leading` are its extents in front of the tile."""
        exprs = [*leading, *extents_of(value, self.system)]
        dynamic = ir.ShapedType.get_dynamic_size()
        static = [e.value if isinstance(e, ir.AffineConstantExpr) else dynamic for e in exprs]
        first = self.system.regions[0].blocks[0].operations[0]
        with ir.InsertionPoint(first), value.owner.operation.location:
            return ir.Operation.create(
                "parc.unknown",
                results=[ir.RankedTensorType.get(static, value.type.element_type)],
                attributes={
                    "name": ir.StringAttr.get(name),
                    "shape": ir.AffineMapAttr.get(ir.AffineMap.get(0, len(self.system.operands), exprs)),
                },
            ).results[0]

    def _emit_stage(
        self, stage: _Stage, crossing: dict[ir.Value, ir.Value], own: list[ir.Value], at: ir.Attribute
    ) -> None:
        needed = self._with_shared(stage.ops, own)
        with ir.InsertionPoint(self.equation):
            equation = ir.Operation.create(
                "parc.equation",
                attributes={"name": ir.StringAttr.get(stage.name), "domain": self.equation.attributes["domain"]},
                regions=1,
                loc=stage.ops[-1].location,
            )
        types = [a.type for a in self.block.arguments]
        block = equation.regions[0].blocks.append(*types, arg_locs=[equation.location] * len(types))
        mapping: dict[ir.Value, ir.Value] = dict(zip(self.block.arguments, block.arguments, strict=True))
        with ir.InsertionPoint(block):
            used = {v for op in needed for v in captured_values(op)}
            for value, array in crossing.items():
                if value not in own and value in used:
                    read = ir.Operation.create(
                        "parc.read",
                        results=[value.type],
                        operands=[array],
                        attributes={"at": at},
                        loc=value.owner.operation.location,
                    )
                    mapping[value] = read.results[0]
            for op in needed:
                clone_with(op, mapping)
            for value in own:
                ir.Operation.create(
                    "parc.write",
                    operands=[mapping[value], crossing[value]],
                    attributes={"at": at},
                    loc=value.owner.operation.location,
                )

    def _with_shared(self, ops: Iterable[ir.Operation], own: list[ir.Value]) -> list[ir.Operation]:
        """The operations of a stage and the shared ones that they use, in program order."""
        wanted = set(ops)
        for op in reversed(list(self.block.operations)):
            operation = op.operation
            if operation in self.shared | self.repeated and any(user in wanted for user in _users(operation)):
                wanted.add(operation)
        return [o.operation for o in self.block.operations if o.operation in wanted]


def _users(op: ir.Operation) -> list[ir.Operation]:
    """The operations of the same block that use a result, themselves or in a region."""
    found = []
    for result in op.results:
        for use in result.uses:
            user = use.owner.operation
            while user.block != op.block:
                user = user.parent
            found.append(user)
    return found
