"""The `parc` dialect: triangular systems of equations as MLIR operations.

A `parc.system` is the central object of the compiler.  It holds

* *symbols*: sizes such as the sequence length `T`, one `index` operand each;
* *unknown* arrays (`parc.unknown`), each element of which is defined exactly once, by
* *equations* (`parc.equation`): an iteration domain and a body of ordinary linalg, arith
  and math operations on tensors, which takes its tiles with `parc.read` and stores them
  with `parc.write`, each through an affine access map; or by
* *boundaries* (`parc.boundary`): values given at the start, such as an initial state.

Arrays defined outside the system (inputs, parameters) are *known* and captured as they are.
An access map sends an iteration point to the leading indices of an array; the remaining
dimensions are the tile that the body sees.  The recurrence `h[t+1] = tanh(x[t] + h[t] U)`:

    %s = "parc.system"(%T, %B) ({
      %h = "parc.unknown"() {name = "H", shape = affine_map<()[T, B] -> (T + 1, B, 8)>}
           : () -> tensor<?x?x8xf32>
      "parc.boundary"(%h, %h0) {domain = affine_set<()[T, B] : (0 == 0)>,
           to = affine_map<()[T, B] -> (0)>, of = affine_map<()[T, B] -> ()>}
           : (tensor<?x?x8xf32>, tensor<?x8xf32>) -> ()
      "parc.equation"() ({
      ^bb0(%t: index):
        %xt = "parc.read"(%x) {at = affine_map<(t)[T, B] -> (t)>} : (tensor<?x?x8xf32>) -> tensor<?x8xf32>
        %ht = "parc.read"(%h) {at = affine_map<(t)[T, B] -> (t)>} : (tensor<?x?x8xf32>) -> tensor<?x8xf32>
        %new = ... tanh(%xt + %ht * %U) ...
        "parc.write"(%new, %h) {at = affine_map<(t)[T, B] -> (t + 1)>}
           : (tensor<?x8xf32>, tensor<?x?x8xf32>) -> ()
      }) {name = "cell", domain = affine_set<(t)[T, B] : (t >= 0, -t + T - 1 >= 0)>} : () -> ()
    }) {symbols = ["T", "B"]} : (index, index) -> !parc.solution
    %H = "parc.array"(%s) {name = "H"} : (!parc.solution) -> tensor<?x?x8xf32>

A *schedule* is an attribute of every equation: `schedule = affine_map<(t)[T, B] -> (t)>` sends
each point to a time vector; points run in lexicographic order of their time, and points with
equal time run in parallel.  `docs/architecture.md` describes the schedule's other attributes.

A `parc.iterate` repeats *sweeps*, in whose code the arrays that are solved for are known: those of the sweep before.

The rest of the dialect names what a *thread team* does once a system has become loops.
Every thread of the team runs the same code (`parc.team`).

(IRDL, which defines these operations, gives all operands of a variadic group one type; that
is why arrays reach an equation by `parc.read` and leave a system by `parc.array`.)
"""

import sys
from collections.abc import Sequence
from typing import Any

from torch_mlir import ir
from torch_mlir.dialects import ext


class Parc(ext.Dialect, name="parc"):
    """Triangular systems of equations and the thread teams that solve them."""


class Solution(Parc.Type, name="solution"):
    """The solved unknowns of a system; `parc.array` takes one out."""


class SystemOp(Parc.Operation, name="system", traits=[ir.NoTerminatorTrait]):
    """A triangular system of equations; the operands are the values of its symbols."""

    values: Sequence[ext.Operand[Any]]
    solution: ext.Result[Any]
    body: ext.Region
    symbols: Any = ext.attribute()

    def verify_invariants(self) -> bool:
        if not _complete(self, "symbols", results=1, regions=1):
            return True
        symbols = self.attributes["symbols"]
        if not isinstance(symbols, ir.ArrayAttr) or not all(isinstance(s, ir.StringAttr) for s in symbols):
            return _fail(self, "expects `symbols` to be an array of names")
        operands = list(self.operation.operands)
        if len(operands) != len(symbols):
            return _fail(self, f"has {len(symbols)} symbols but {len(operands)} values for them")
        if any(str(v.type) != "index" for v in operands):
            return _fail(self, "expects the values of its symbols to be of type index")
        if str(self.operation.results[0].type) != "!parc.solution":
            return _fail(self, "expects a result of type !parc.solution")
        if len(self.regions[0].blocks) != 1:
            return _fail(self, "expects a body of one block")
        names: set[str] = set()
        for op in self.regions[0].blocks[0].operations:
            kind = op.operation.name
            if kind not in ("parc.unknown", "parc.boundary", "parc.equation"):
                return _fail(self, f"allows only unknowns, boundaries and equations in its body, found '{kind}'")
            if "name" in op.operation.attributes:
                name = ir.StringAttr(op.operation.attributes["name"]).value
                if name in names:
                    return _fail(self, f'has two members named "{name}"')
                names.add(name)
            for key in ("domain", "shape", "storage", "to", "of", "schedule"):
                attr = op.operation.attributes.get(key)
                if isinstance(attr, ir.AffineMapAttr | ir.IntegerSetAttr):
                    count = _dims_and_symbols(attr)[1]
                    if count != len(symbols):
                        return _fail(
                            op, f"`{key}` has {count} symbols, the system has {len(symbols)}: {_names(symbols)}"
                        )
        return True


class UnknownOp(Parc.Operation, name="unknown"):
    """An array to solve for; `shape` gives every extent as an affine function of the symbols.

    `storage`, where there is one, sends the leading indices of an element to its place in memory: each stays as it is
    (`d0`), or is taken modulo a constant (`(d0 - 1) mod 8`, `0`), and elements with the same place share it.
    """

    array: ext.Result[Any]
    shape: Any = ext.attribute()

    def verify_invariants(self) -> bool:
        if not _complete(self, "shape", results=1):
            return True
        if not _has_name(self) or not _inside(self, "parc.system"):
            return False
        shape = self.attributes["shape"]
        if not isinstance(shape, ir.AffineMapAttr):
            return _fail(self, "expects `shape` to be an affine map of the symbols")
        type_ = self.operation.results[0].type
        if not isinstance(type_, ir.RankedTensorType):
            return _fail(self, f"expects a ranked tensor result, got {type_}")
        m = shape.value
        if m.n_dims or len(m.results) != type_.rank:
            return _fail(self, f"expects `shape` to have no dimensions and {type_.rank} results, got {m}")
        for i, extent in enumerate(m.results):
            constant = extent.value if isinstance(extent, ir.AffineConstantExpr) else None
            declared = None if type_.is_dynamic_dim(i) else type_.get_dim_size(i)
            if declared is not None and declared != constant:
                return _fail(self, f"has extent {i} = {declared} in its type but {extent} in `shape`")
        return "storage" not in self.attributes or self._verify_storage(type_.rank)

    def _verify_storage(self, rank: int) -> bool:
        storage = self.attributes["storage"]
        if not isinstance(storage, ir.AffineMapAttr):
            return _fail(self, "expects `storage` to be an affine map of its leading indices")
        m = storage.value
        if m.n_dims > rank or len(m.results) != m.n_dims:
            return _fail(self, f"expects `storage` to have at most {rank} indices and as many results, got {m}")
        for i, expr in enumerate(m.results):
            used = {d for d in range(m.n_dims) if expr.compose(_moved(m, d)) != expr}
            same = isinstance(expr, ir.AffineDimExpr)
            folded = isinstance(expr, ir.AffineModExpr) and isinstance(expr.rhs, ir.AffineConstantExpr)
            if expr != ir.AffineExpr.get_constant(0, m.context) and not (used == {i} and (same or folded)):
                return _fail(
                    self, f"expects index {i} of `storage` to be d{i}, (d{i} + ...) mod a constant or 0: {expr}"
                )
        return True


class BoundaryOp(Parc.Operation, name="boundary"):
    """Given values of an unknown array: `array[to(p)] = source[of(p)]` for every p in `domain`."""

    array: ext.Operand[Any]
    source: ext.Operand[Any]
    domain: Any = ext.attribute()
    to: Any = ext.attribute()
    of: Any = ext.attribute()

    def verify_invariants(self) -> bool:
        if not _complete(self, "domain", "to", "of", operands=2):
            return True
        dims = _domain_dims(self)
        if dims is None or not _inside(self, "parc.system"):
            return False
        tiles = []
        for key, value in zip(("to", "of"), self.operation.operands, strict=True):
            tile = _access_tile(self, key, value, dims)
            if tile is None:
                return False
            tiles.append(tile)
        if not _compatible(*tiles):
            return _fail(self, f"gives tiles of {tiles[1]} to an array with tiles of {tiles[0]}")
        return _is_unknown(self, self.operation.operands[0])


class EquationOp(Parc.Operation, name="equation", traits=[ir.NoTerminatorTrait]):
    """One equation: its body, run at every point of `domain`; block arguments are the coordinates."""

    body: ext.Region
    domain: Any = ext.attribute()

    def verify_invariants(self) -> bool:
        if not _complete(self, "domain", regions=1):
            return True
        dims = _domain_dims(self)
        if not _has_name(self) or dims is None or not _inside(self, "parc.system"):
            return False
        if len(self.regions[0].blocks) != 1:
            return _fail(self, "expects a body of one block")
        block = self.regions[0].blocks[0]
        if [str(a.type) for a in block.arguments] != ["index"] * dims:
            return _fail(self, f"expects one index block argument per domain dimension ({dims})")
        if not any(op.operation.name == "parc.write" for op in block.operations):
            return _fail(self, "writes nothing")
        if "schedule" in self.attributes:
            schedule = self.attributes["schedule"]
            if not isinstance(schedule, ir.AffineMapAttr) or schedule.value.n_dims != dims:
                return _fail(self, f"expects `schedule` to be an affine map of its {dims} dimensions")
        return True


class ReadOp(Parc.Operation, name="read"):
    """Inside an equation: the tile `array[at(p)]` of a known or unknown array."""

    array: ext.Operand[Any]
    tile: ext.Result[Any]
    at: Any = ext.attribute()

    def verify_invariants(self) -> bool:
        if not _complete(self, "at", operands=1, results=1):
            return True
        return _verify_access(self, self.operation.operands[0], self.operation.results[0].type)


class WriteOp(Parc.Operation, name="write"):
    """Inside an equation: defines the tile `array[at(p)]` of an unknown array."""

    tile: ext.Operand[Any]
    array: ext.Operand[Any]
    at: Any = ext.attribute()

    def verify_invariants(self) -> bool:
        if not _complete(self, "at", operands=2):
            return True
        tile, array = self.operation.operands
        return _is_unknown(self, array) and _verify_access(self, array, tile.type)


class ArrayOp(Parc.Operation, name="array"):
    """Takes a solved unknown, by name, out of a system's solution: all of it, or its tile `at` an affine map."""

    solution: ext.Operand[Any]
    array: ext.Result[Any]

    def verify_invariants(self) -> bool:
        if not _complete(self, operands=1, results=1):
            return True
        if not _has_name(self):
            return False
        owner = _solved_by(self, "parc.system")
        if owner is None:
            return False
        name = self.attributes["name"]
        for op in owner.regions[0].blocks[0].operations:
            if op.operation.name == "parc.unknown" and op.operation.attributes["name"] == name:
                type_ = op.operation.results[0].type
                if "at" in self.attributes:
                    tile = _access_tile(self, "at", op.operation.results[0], 0)
                    if tile is None:
                        return False
                    type_ = tile
                if type_ != self.operation.results[0].type:
                    return _fail(self, f"has a type other than that of unknown {name}: {type_}")
                return True
        return _fail(self, f"names {name}, which is no unknown of the system")


class IterateOp(Parc.Operation, name="iterate", traits=[ir.NoTerminatorTrait]):
    """Sweeps over arrays, each of which computes all of them anew from those of the sweep before.

    `body` is the code of a sweep; its argument is the number of sweeps before it.  It takes an array with
    `parc.previous`, gives it with `parc.next`, and says with `parc.change` how far the sweep is from the one before.
    It stops after the sweep whose change is at most `tolerance`, or after as many sweeps as the operand says.
    `otherwise` is empty, or gives with `parc.next` what the arrays are where the last change was larger.

        %s = "parc.iterate"(%limit) ({
        ^bb0(%k: index):
          %old = "parc.previous"(%start) {name = "H"} : (tensor<?x8xf32>) -> tensor<?x8xf32>
          ...
          "parc.next"(%new) {name = "H"} : (tensor<?x8xf32>) -> ()
          "parc.change"(%c) : (f32) -> ()
        }, {
        }) {name = "cell", solver = "jacobi", tolerance = 1.0e-06 : f64} : (index) -> !parc.solution
        %H = "parc.iterated"(%s) {name = "H"} : (!parc.solution) -> tensor<?x8xf32>
    """

    limit: ext.Operand[Any]
    solution: ext.Result[Any]
    body: ext.Region
    otherwise: ext.Region
    solver: Any = ext.attribute()
    tolerance: Any = ext.attribute()

    def verify_invariants(self) -> bool:
        if not _complete(self, "solver", "tolerance", operands=1, results=1, regions=2):
            return True
        if not _has_name(self):
            return False
        tolerance = self.attributes["tolerance"]
        if not isinstance(tolerance, ir.FloatAttr) or not tolerance.value >= 0:
            return _fail(self, "expects `tolerance` to be a number that is not negative")
        if str(self.operation.operands[0].type) != "index":
            return _fail(self, "expects the number of sweeps to be of type index")
        body, otherwise = (list(region.blocks) for region in self.regions)
        if len(body) != 1 or [str(a.type) for a in body[0].arguments] != ["index"]:
            return _fail(self, "expects a body of one block with one index argument")
        if len(otherwise) > 1 or any(block.arguments for block in otherwise):
            return _fail(self, "expects what is done otherwise to be a block without arguments")
        previous = _named(body[0], "parc.previous")
        following = _named(body[0], "parc.next")
        if set(previous) != set(following) or not previous:
            return _fail(self, "expects one `parc.next` for each array taken with `parc.previous`, and an array")
        exact = _named(otherwise[0], "parc.next") if otherwise else {}
        if exact and set(exact) != set(previous):
            return _fail(self, "expects all of its arrays to be given, where they are computed otherwise")
        for given in (following, exact):
            for name, op in given.items():
                if op.operands[0].type != previous[name].results[0].type:
                    return _fail(
                        self,
                        f'expects the next "{name}" to be of type {previous[name].results[0].type}',
                    )
        changes = [op for op in body[0].operations if op.operation.name == "parc.change"]
        return len(changes) == 1 or _fail(self, "expects one `parc.change`")


class PreviousOp(Parc.Operation, name="previous"):
    """Inside `parc.iterate`: the array of the sweep before; in the first sweep, its operand."""

    start: ext.Operand[Any]
    array: ext.Result[Any]

    def verify_invariants(self) -> bool:
        if not _complete(self, operands=1, results=1):
            return True
        start, array = self.operation.operands[0].type, self.operation.results[0].type
        if start != array or not isinstance(array, ir.RankedTensorType):
            return _fail(self, f"expects a ranked tensor and a result of its type, got {start} and {array}")
        return _has_name(self) and _inside(self, "parc.iterate")


class NextOp(Parc.Operation, name="next"):
    """Inside `parc.iterate`: what an array is after the sweep."""

    array: ext.Operand[Any]

    def verify_invariants(self) -> bool:
        return not _complete(self, operands=1) or (_has_name(self) and _inside(self, "parc.iterate"))


class ChangeOp(Parc.Operation, name="change"):
    """Inside `parc.iterate`: how far the sweep is from the one before."""

    change: ext.Operand[Any]

    def verify_invariants(self) -> bool:
        if not _complete(self, operands=1):
            return True
        if not isinstance(self.operation.operands[0].type, ir.F32Type | ir.F64Type):
            return _fail(self, f"expects a number of type f32 or f64, got {self.operation.operands[0].type}")
        return _inside(self, "parc.iterate")


class IteratedOp(Parc.Operation, name="iterated"):
    """Takes an array, by name, out of the solution of a `parc.iterate`."""

    solution: ext.Operand[Any]
    array: ext.Result[Any]

    def verify_invariants(self) -> bool:
        if not _complete(self, operands=1, results=1):
            return True
        if not _has_name(self):
            return False
        owner = _solved_by(self, "parc.iterate")
        if owner is None:
            return False
        name = ir.StringAttr(self.attributes["name"]).value
        found = _named(owner.regions[0].blocks[0], "parc.previous").get(name)
        if found is None:
            return _fail(self, f'names "{name}", which is no array of the iteration')
        if found.results[0].type != self.operation.results[0].type:
            return _fail(self, f'has a type other than that of "{name}": {found.results[0].type}')
        return True


class TeamOp(Parc.Operation, name="team", traits=[ir.NoTerminatorTrait]):
    """Code that every thread of the team runs; block arguments are the thread's number and the team's size."""

    body: ext.Region

    def verify_invariants(self) -> bool:
        if not _complete(self, regions=1):
            return True
        blocks = self.regions[0].blocks
        if len(blocks) != 1 or [str(a.type) for a in blocks[0].arguments] != ["index", "index"]:
            return _fail(self, "expects a body of one block with two index arguments")
        return True


class BarrierOp(Parc.Operation, name="barrier"):
    """Inside `parc.team`: waits until every thread of the team has arrived."""


class ArriveOp(Parc.Operation, name="arrive"):
    """Inside `parc.team`: says that this member has finished what it does before (a release)."""

    def verify_invariants(self) -> bool:
        return _in_team(self)


class AwaitOp(Parc.Operation, name="await"):
    """Inside `parc.team`: waits for the members of some crews (an acquire).

    Members `m` with the same `m / size` are a *crew*, which has that number. A member goes on when those of the crews
    whose bits are set in `crews` (an i64; crew 0 is the lowest bit) have executed `parc.arrive` as often as itself.
    All members of a team execute the same arrives and awaits, in the same order; `size` is the same for all of them,
    `crews` need not be.
    """

    size: ext.Operand[Any]
    crews: ext.Operand[Any]

    def verify_invariants(self) -> bool:
        if not _complete(self, operands=2):
            return True
        types = [str(v.type) for v in self.operation.operands]
        if types != ["index", "i64"]:
            return _fail(self, f"expects a size of type index and a set of crews of type i64, got {', '.join(types)}")
        return _in_team(self)


def load(context: ir.Context) -> None:
    """Make the dialect known to a context; harmless when it already is."""
    # The bindings import a module for each dialect that they meet, at every operation where there is none yet.
    sys.modules.setdefault("torch_mlir.dialects.parc", sys.modules[__name__])
    with context:
        if not context.is_dialect_loaded("parc"):
            Parc.load()


def tile_type(array: ir.RankedTensorType, access: ir.AffineMap) -> ir.RankedTensorType:
    """The type of `array[access(p)]`: the dimensions that the access map leaves whole."""
    dims = range(len(access.results), array.rank)
    shape = [array.shape[i] for i in dims]
    return ir.RankedTensorType.get(shape, array.element_type, loc=ir.Location.unknown(array.context))


def _fail(op: ir.OpView, message: str) -> bool:
    op.location.emit_error(f"'{op.operation.name}' op {message}")
    return False


def _complete(op: ir.OpView, *attributes: str, operands: int | None = None, results: int = 0, regions: int = 0) -> bool:
    """Whether `op` has the parts that its declaration demands; where not, IRDL says so after this verifier."""
    return (
        all(key in op.attributes for key in attributes)
        and operands in (None, len(op.operation.operands))
        and (results, regions) == (len(op.operation.results), len(op.operation.regions))
    )


def _names(symbols: ir.ArrayAttr) -> str:
    return ", ".join(ir.StringAttr(s).value for s in symbols)


def _solved_by(op: ir.OpView, kind: str) -> ir.Operation | None:
    """The operation whose solution is the operand; reports an error and returns None when it is of another kind."""
    owner = op.operation.operands[0].owner
    if isinstance(owner, ir.Operation | ir.OpView) and owner.name == kind:
        return owner.operation
    _fail(op, f"expects the solution of a `{kind}`")
    return None


def _named(block: ir.Block, kind: str) -> dict[str, ir.Operation]:
    """The operations of one kind in a block, by name; those whose name is missing are checked by themselves."""
    found = [op.operation for op in block.operations if op.operation.name == kind and "name" in op.operation.attributes]
    return {ir.StringAttr(op.attributes["name"]).value: op for op in found}


def _has_name(op: ir.OpView) -> bool:
    if "name" in op.attributes and isinstance(op.attributes["name"], ir.StringAttr):
        return True
    return _fail(op, "requires a `name`")


def _inside(op: ir.OpView, parent: str) -> bool:
    # A detached operation is still being built: its place is checked when it has one.
    if op.operation.parent is None or op.operation.parent.name == parent:
        return True
    return _fail(op, f"expects to be inside `{parent}`")


def _in_team(op: ir.OpView) -> bool:
    parent = op.operation.parent
    while parent is not None and parent.name not in ("parc.team", "builtin.module"):
        parent = parent.parent
    # What is around a detached operation is checked when it has its place.
    return parent is None or parent.name == "parc.team" or _fail(op, "expects to be inside `parc.team`")


def _is_unknown(op: ir.OpView, array: ir.Value) -> bool:
    owner = array.owner
    if isinstance(owner, ir.Operation | ir.OpView) and owner.name == "parc.unknown":
        return True
    return _fail(op, "defines an array that is not a `parc.unknown`")


def _compatible(a: ir.RankedTensorType, b: ir.RankedTensorType) -> bool:
    """Same element type and rank, and no two static extents that differ."""
    return (
        a.element_type == b.element_type
        and a.rank == b.rank
        and all(
            a.is_dynamic_dim(i) or b.is_dynamic_dim(i) or a.get_dim_size(i) == b.get_dim_size(i) for i in range(a.rank)
        )
    )


def _access_tile(op: ir.OpView, key: str, array: ir.Value, dims: int) -> ir.RankedTensorType | None:
    """The tile of `array` under the op's map `key`; reports an error and returns None when it does not fit."""
    attr = op.attributes[key]
    if not isinstance(attr, ir.AffineMapAttr):
        _fail(op, f"expects `{key}` to be an affine map")
    elif not isinstance(array.type, ir.RankedTensorType):
        _fail(op, f"expects a ranked tensor, got {array.type}")
    elif attr.value.n_dims != dims:
        _fail(op, f"has `{key}` = {attr.value} of {attr.value.n_dims} dimensions in a domain of {dims}")
    elif len(attr.value.results) > array.type.rank:
        _fail(op, f"has `{key}` = {attr.value} with more results than {array.type} has dimensions")
    else:
        return tile_type(array.type, attr.value)
    return None


def _verify_access(op: ir.OpView, array: ir.Value, tile: ir.Type) -> bool:
    if not _inside(op, "parc.equation"):
        return False
    parent = op.operation.parent
    if parent is None:
        return True
    want = _access_tile(op, "at", array, len(parent.regions[0].blocks[0].arguments))
    if want is None:
        return False
    if want != tile:
        return _fail(op, f"has a tile of {tile}, its access gives {want}")
    return True


def _moved(m: ir.AffineMap, dim: int) -> ir.AffineMap:
    """The map that adds one to a dimension and leaves the others as they are."""
    dims = [ir.AffineExpr.get_dim(i, m.context) + int(i == dim) for i in range(m.n_dims)]
    return ir.AffineMap.get(m.n_dims, m.n_symbols, dims, m.context)


def _dims_and_symbols(attr: ir.Attribute) -> tuple[int, int]:
    """How many dimensions and symbols an affine map or set attribute has."""
    if isinstance(attr, ir.AffineMapAttr):
        return attr.value.n_dims, attr.value.n_symbols
    # The bindings give no access to the set inside an attribute: count the names in its text.
    head = str(attr).split(":", 1)[0]
    dims = head.split("(", 1)[1].split(")", 1)[0]
    symbols = head.split("[", 1)[1].split("]", 1)[0] if "[" in head else ""
    return tuple(len([n for n in part.split(",") if n.strip()]) for part in (dims, symbols))  # type: ignore[return-value]


def _domain_dims(op: ir.OpView) -> int | None:
    """The number of dimensions of the op's `domain`; reports an error and returns None when malformed."""
    domain = op.attributes["domain"]
    if not isinstance(domain, ir.IntegerSetAttr):
        _fail(op, "expects `domain` to be an affine set")
        return None
    return _dims_and_symbols(domain)[0]
