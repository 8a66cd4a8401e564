"""Executes raised IR directly, one scalar program at a time: the meaning of `@main`, independent of every lowering.

Tensors are numpy arrays, `index` values are ints.  A system is solved by demand: points run in any order in which
their reads are defined, and an element that is written twice, or read and never written, is an error.
"""

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np
from torch_mlir import ir
from torch_mlir.passmanager import PassManager

from parc.poly.affine import domain_rank, instance_space, to_set

Value = np.ndarray | np.generic | int

_FLOATS = {"f32": np.float32, "f64": np.float64}


def evaluate(module: ir.Module, symbols: Sequence[int], tensors: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Call `@main` of the module, which stays as it is, with values for its symbols and tensors for the rest."""
    with module.context, ir.Location.unknown():
        copy = ir.Module.parse(str(module))
        PassManager.parse("builtin.module(linalg-generalize-named-ops)").run(copy.operation)
        main = ir.SymbolTable(copy.operation)["main"].operation
        block = main.regions[0].blocks[0]
        arguments = [*symbols, *tensors]
        for argument, value in zip(block.arguments, arguments, strict=True):
            _check_shape(argument, value)
        return _Frame(dict(zip(block.arguments, arguments, strict=True))).run(block)


def _check_shape(argument: ir.Value, value: Value) -> None:
    if isinstance(argument.type, ir.RankedTensorType):
        dynamic = ir.ShapedType.get_dynamic_size()
        assert isinstance(value, np.ndarray) and value.ndim == argument.type.rank, f"{argument} is given {value}"
        assert all(d in (dynamic, s) for d, s in zip(argument.type.shape, value.shape, strict=True)), (
            f"{argument.type} is given a tensor of shape {value.shape}"
        )


def dtype(type_: ir.Type) -> type:
    """The numpy type of a scalar type, or of the elements of a tensor."""
    if isinstance(type_, ir.RankedTensorType):
        return dtype(type_.element_type)
    if isinstance(type_, ir.IndexType):
        return np.int64
    if isinstance(type_, ir.IntegerType):
        return np.bool_ if type_.width == 1 else {8: np.int8, 32: np.int32, 64: np.int64}[type_.width]
    return _FLOATS[str(type_)]


class _Frame:
    """The values of one block's scope."""

    def __init__(self, values: dict[ir.Value, Value], grid: Sequence[np.ndarray] = ()) -> None:
        self.values = values
        self.grid = grid  # inside a linalg.generic: the index along each loop

    def run(self, block: ir.Block) -> list[Value]:
        """Execute the block; the operands of its terminator."""
        for op in block.operations:
            operation = op.operation
            operands = [self.values[v] for v in operation.operands] if operation.name != "parc.write" else []
            if operation.name in ("func.return", "linalg.yield", "tensor.yield"):
                return operands
            results = self.execute(operation, operands)
            self.values.update(zip(operation.results, results, strict=True))
        return []

    def execute(self, op: ir.Operation, operands: list[Value]) -> list[Value]:
        name = op.name
        if name == "arith.constant":
            return [_constant(op)]
        if name == "linalg.generic":
            return self._generic(op, operands)
        if name == "linalg.index":
            return [self.grid[op.attributes["dim"].value]]
        if name == "parc.system":
            system = _System(op, self.values)
            system.solve()
            return [system]
        if name == "parc.array":
            return [operands[0].take(op)]
        if name == "parc.iterate":
            return [_iterate(self, op, int(operands[0]))]
        if name == "parc.iterated":
            return [operands[0][op.attributes["name"].value]]
        if name in ("arith.cmpf", "arith.cmpi"):
            return [_COMPARE[name][op.attributes["predicate"].value](*operands)]
        if name == "cf.assert":
            assert np.all(operands[0]), op.attributes["msg"]
            return []
        if name.startswith(("arith.", "math.")):
            with np.errstate(all="ignore"):
                return [_SCALAR[name](*operands, dtype(op.results[0].type))]
        return [getattr(self, "_" + name.replace(".", "_"))(op, *operands)]

    # -- tensors -----------------------------------------------------------------------------------------------

    def _affine_apply(self, op: ir.Operation, *operands: int) -> int:
        map_ = ir.AffineMapAttr(op.attributes["map"]).value
        (expr,) = map_.results
        return int(_affine(expr, operands[: map_.n_dims], operands[map_.n_dims :]))

    def _tensor_empty(self, op: ir.Operation, *sizes: int) -> np.ndarray:
        fresh = iter(sizes)
        type_ = op.results[0].type
        shape = [next(fresh) if type_.is_dynamic_dim(i) else s for i, s in enumerate(type_.shape)]
        fill = np.nan if dtype(type_.element_type) in _FLOATS.values() else 0
        return np.full(shape, fill, dtype(type_.element_type))

    def _tensor_dim(self, op: ir.Operation, source: np.ndarray, dim: int) -> int:
        return source.shape[int(dim)]

    def _tensor_cast(self, op: ir.Operation, source: np.ndarray) -> np.ndarray:
        return source

    def _tensor_extract(self, op: ir.Operation, source: np.ndarray, *indices: Value) -> Value:
        return source[tuple(indices)]

    def _tensor_from_elements(self, op: ir.Operation, *elements: Value) -> np.ndarray:
        type_ = op.results[0].type
        return np.array(elements, dtype(type_.element_type)).reshape(type_.shape)

    def _tensor_concat(self, op: ir.Operation, *pieces: np.ndarray) -> np.ndarray:
        return np.concatenate(pieces, op.attributes["dim"].value)

    def _tensor_collapse_shape(self, op: ir.Operation, source: np.ndarray) -> np.ndarray:
        groups = [[d.value for d in g] for g in op.attributes["reassociation"]]
        return source.reshape([math.prod(source.shape[d] for d in g) for g in groups])

    def _tensor_expand_shape(self, op: ir.Operation, source: np.ndarray, *sizes: int) -> np.ndarray:
        return source.reshape(self._mixed(op, "output_shape", list(sizes)))

    def _tensor_extract_slice(self, op: ir.Operation, source: np.ndarray, *dynamic: int) -> np.ndarray:
        part = source[self._window(op, source.shape, dynamic)]
        kept = op.results[0].type
        if part.ndim == kept.rank:
            return part
        # The unit dimensions to drop: those left over after matching the result's extents in order.
        dims = [1 if (s, d) == (1, 1) else s for s, d in zip(part.shape, part.shape, strict=True)]
        units = [i for i, s in enumerate(dims) if s == 1][: part.ndim - kept.rank]
        return part.reshape([s for i, s in enumerate(part.shape) if i not in units])

    def _tensor_insert_slice(
        self, op: ir.Operation, source: np.ndarray, target: np.ndarray, *dynamic: int
    ) -> np.ndarray:
        result = target.copy()
        window = self._window(op, target.shape, dynamic)
        result[window] = source.reshape(result[window].shape)
        return result

    def _tensor_pad(self, op: ir.Operation, source: np.ndarray, *dynamic: int) -> np.ndarray:
        fresh = list(dynamic)
        low, high = self._mixed(op, "low", fresh), self._mixed(op, "high", fresh)
        terminator = list(op.regions[0].blocks[0].operations)[-1].operation
        return np.pad(source, list(zip(low, high, strict=True)), constant_values=self.values[terminator.operands[0]])

    def _window(self, op: ir.Operation, shape: Sequence[int], dynamic: Sequence[int]) -> tuple[slice, ...]:
        fresh = list(dynamic)
        offsets, sizes, strides = (self._mixed(op, key, fresh) for key in ("offsets", "sizes", "strides"))
        for o, n, s, extent in zip(offsets, sizes, strides, shape, strict=True):
            assert o >= 0 and n >= 0 and (n == 0 or o + (n - 1) * s < extent), (
                f"{op} cuts {n} elements from {o} on out of {extent}"
            )
        return tuple(slice(o, o + n * s, s) for o, n, s in zip(offsets, sizes, strides, strict=True))

    def _mixed(self, op: ir.Operation, key: str, dynamic: list[int]) -> list[int]:
        """A list of static entries with the dynamic ones filled in; takes these off the front of `dynamic`."""
        mark = ir.ShapedType.get_dynamic_size()
        return [int(dynamic.pop(0)) if s == mark else s for s in op.attributes[f"static_{key}"]]

    # -- structured operations ---------------------------------------------------------------------------------

    def _generic(self, op: ir.Operation, operands: list[Value]) -> list[Value]:
        maps = [a.value for a in op.attributes["indexing_maps"]]
        segments = list(op.attributes["operandSegmentSizes"])
        extents = _loop_extents(maps, operands)
        kinds = ["reduction" in str(a) for a in op.attributes["iterator_types"]]
        outputs = [np.array(v) for v in operands[segments[0] :]]
        block = op.regions[0].blocks[0]
        points = itertools.product(*(range(e) if kind else (None,) for e, kind in zip(extents, kinds, strict=True)))
        for point in points:
            grid = _grid(extents, point)
            inputs = [*operands[: segments[0]], *outputs]
            places = [tuple(_affine(e, grid) for e in m.results) for m in maps]
            elements = [
                v[place] if isinstance(v, np.ndarray) and place else v[()] if isinstance(v, np.ndarray) else v
                for v, place in zip(inputs, places, strict=True)
            ]
            inner = _Frame({**self.values, **dict(zip(block.arguments, elements, strict=True))}, grid)
            for output, place, value in zip(outputs, places[segments[0] :], inner.run(block), strict=True):
                output[place] = value
        return list(outputs)


def _iterate(frame: _Frame, op: ir.Operation, limit: int) -> dict[str, np.ndarray]:
    """The arrays after the last sweep of a `parc.iterate`, by name."""
    body, otherwise = (list(region.blocks) for region in op.regions)
    members = [o.operation for o in body[0].operations]
    arrays = {o.attributes["name"].value: frame.values[o.operands[0]] for o in members if o.name == "parc.previous"}
    tolerance, change = op.attributes["tolerance"].value, np.inf
    for sweep in range(limit):
        inner = _Frame({**frame.values, body[0].arguments[0]: sweep})
        arrays, change = _run_sweep(inner, members, arrays)
        if change <= tolerance:
            return arrays
    if otherwise and not change <= tolerance:
        arrays, _ = _run_sweep(_Frame(dict(frame.values)), [o.operation for o in otherwise[0].operations], arrays)
    return arrays


def _run_sweep(
    frame: _Frame, members: Sequence[ir.Operation], arrays: dict[str, np.ndarray]
) -> tuple[dict[str, np.ndarray], Value]:
    """The next arrays and the change."""
    following, change = {}, np.inf
    for op in members:
        operands = [frame.values[v] for v in op.operands]
        if op.name == "parc.previous":
            frame.values[op.results[0]] = arrays[op.attributes["name"].value]
        elif op.name == "parc.next":
            following[op.attributes["name"].value] = operands[0]
        elif op.name == "parc.change":
            change = operands[0]
        else:
            frame.values.update(zip(op.results, frame.execute(op, operands), strict=True))
    return following, change


def _loop_extents(maps: Sequence[ir.AffineMap], operands: Sequence[Value]) -> list[int]:
    extents: dict[int, int] = {}
    for m, value in zip(maps, operands, strict=True):
        for expr, extent in zip(m.results, np.shape(value), strict=True):
            if isinstance(expr, ir.AffineDimExpr):
                known = extents.setdefault(expr.position, extent)
                assert known == extent, f"a loop has extents {known} and {extent}"
    return [extents[d] for d in range(maps[0].n_dims)]


def _grid(extents: Sequence[int], point: Sequence[int | None]) -> list[np.ndarray]:
    parallel = [d for d, p in enumerate(point) if p is None]
    grid = []
    for d, (extent, p) in enumerate(zip(extents, point, strict=True)):
        if p is None:
            shape = [1] * len(parallel)
            shape[parallel.index(d)] = extent
            grid.append(np.arange(extent).reshape(shape))
        else:
            grid.append(np.full([1] * len(parallel), p))
    return grid


def _affine(expr: ir.AffineExpr, dims: Sequence[Value], symbols: Sequence[int] = ()) -> Value:
    if isinstance(expr, ir.AffineConstantExpr):
        return expr.value
    if isinstance(expr, ir.AffineDimExpr):
        return dims[expr.position]
    if isinstance(expr, ir.AffineSymbolExpr):
        return symbols[expr.position]
    left, right = _affine(expr.lhs, dims, symbols), _affine(expr.rhs, dims, symbols)
    if isinstance(expr, ir.AffineAddExpr):
        return left + right
    if isinstance(expr, ir.AffineMulExpr):
        return left * right
    if isinstance(expr, ir.AffineModExpr):
        return left % right
    return left // right if isinstance(expr, ir.AffineFloorDivExpr) else -(-left // right)


class _System:
    """Solves one `parc.system`."""

    def __init__(self, op: ir.Operation, outer: dict[ir.Value, Value]) -> None:
        self.outer = outer
        self.sizes = [int(outer[v]) for v in op.operands]
        self.names = tuple(s.value for s in op.attributes["symbols"])
        self.members = [o.operation for o in op.regions[0].blocks[0].operations]
        self.arrays: dict[ir.Value, np.ndarray] = {}
        self.written: dict[ir.Value, np.ndarray] = {}

    def take(self, op: ir.Operation) -> np.ndarray:
        """What a `parc.array` takes out."""
        (array,) = (
            u.results[0] for u in self._members("parc.unknown") if u.attributes["name"] == op.attributes["name"]
        )
        return self.arrays[array][self._at(op.attributes["at"])] if "at" in op.attributes else self.arrays[array]

    def solve(self) -> None:
        for op in self._members("parc.unknown"):
            shape = self._at(op.attributes["shape"])
            array = op.results[0]
            self.arrays[array] = np.full(shape, 0, dtype(array.type.element_type))
            self.written[array] = np.zeros(shape, bool)
        self.values = self.outer | self.arrays
        for op in self._members("parc.boundary"):
            for point in self._points(op):
                array, source = op.operands
                self._define(
                    array,
                    self._at(op.attributes["to"], point),
                    self.values[source][self._at(op.attributes["of"], point)],
                )
        pending = [(e, p) for e in self._members("parc.equation") for p in self._points(e)]
        while pending:
            waiting = [(e, p) for e, p in pending if not self._run(e, p)]
            assert len(waiting) < len(pending), f"nothing defines what {len(waiting)} points read: {waiting[0]}"
            pending = waiting

    def _members(self, name: str) -> list[ir.Operation]:
        return [op for op in self.members if op.name == name]

    def _at(self, attr: ir.Attribute, point: Sequence[int] = ()) -> tuple[int, ...]:
        return tuple(int(_affine(e, point, self.sizes)) for e in attr.value.results)

    def _points(self, op: ir.Operation) -> list[tuple[int, ...]]:
        domain = op.attributes["domain"]
        dims = tuple(f"i{d}" for d in range(domain_rank(domain)))
        points = to_set(domain, instance_space(self.names, "", dims))
        for i, size in enumerate(self.sizes):
            points = points.fix_val(_PARAM, i, size)
        found: list[tuple[int, ...]] = []
        points.project_out_all_params().foreach_point(
            lambda p: found.append(tuple(p.get_coordinate_val(_SET, d).to_python() for d in range(len(dims))))
        )
        return sorted(found)

    def _run(self, equation: ir.Operation, point: Sequence[int]) -> bool:
        """Execute one point, unless it reads something that is not defined yet."""
        block = equation.regions[0].blocks[0]
        for op in block.operations:
            if op.operation.name == "parc.read" and op.operation.operands[0] in self.written:
                at = self._at(op.operation.attributes["at"], point)
                written = self.written[op.operation.operands[0]]
                assert _inside(at, written.shape), f"{op} reads {at} of an array of shape {written.shape}"
                if not written[at].all():
                    return False
        frame = _Point(self, {**self.values, **dict(zip(block.arguments, point, strict=True))}, point)
        frame.run(block)
        return True

    def read(self, op: ir.Operation, array: np.ndarray, point: Sequence[int]) -> np.ndarray:
        at = self._at(op.attributes["at"], point)
        assert _inside(at, array.shape), f"{op} reads {at} of an array of shape {array.shape}"
        return array[at].copy()

    def write(self, op: ir.Operation, values: dict[ir.Value, Value], point: Sequence[int]) -> None:
        self._define(op.operands[1], self._at(op.attributes["at"], point), values[op.operands[0]])

    def _define(self, array: ir.Value, at: tuple[int, ...], value: Value) -> None:
        assert _inside(at, self.arrays[array].shape), f"{at} is outside of {array}"
        assert not self.written[array][at].any(), f"{at} of {array} is defined twice"
        assert self.arrays[array][at].shape == np.shape(value), f"{array} at {at} is given a tile of {np.shape(value)}"
        self.arrays[array][at] = value
        self.written[array][at] = True


class _Point(_Frame):
    """The body of an equation at one point."""

    def __init__(self, system: _System, values: dict[ir.Value, Value], point: Sequence[int]) -> None:
        super().__init__(values)
        self.system = system
        self.point = point

    def execute(self, op: ir.Operation, operands: list[Value]) -> list[Value]:
        if op.name == "parc.read":
            return [self.system.read(op, operands[0], self.point)]
        if op.name == "parc.write":
            self.system.write(op, self.values, self.point)
            return []
        return super().execute(op, operands)


def _inside(at: Sequence[int], shape: Sequence[int]) -> bool:
    return all(0 <= i < n for i, n in zip(at, shape, strict=False))


def _constant(op: ir.Operation) -> Value:
    attr, type_ = op.attributes["value"], op.results[0].type
    if isinstance(attr, ir.DenseResourceElementsAttr):
        raise NotImplementedError("dense_resource constants")
    if isinstance(attr, ir.DenseElementsAttr):
        element = type_.element_type
        if attr.is_splat:
            return np.full(type_.shape, attr.get_splat_value().maybe_downcast().value, dtype(element))
        return np.array(attr).astype(dtype(element)).reshape(type_.shape)
    if isinstance(type_, ir.IndexType):
        return int(attr.value)
    return dtype(type_)(attr.value)


def _cast(value: Value, to: type) -> Value:
    return np.asarray(value).astype(to)[()]


def _erf(value: Value, to: type) -> Value:
    return np.vectorize(math.erf)(value).astype(to)


def _unary(function: Callable[[Value], Value]) -> Callable[[Value, type], Value]:
    return lambda a, to: _cast(function(a), to)


def _binary(function: Callable[[Value, Value], Value]) -> Callable[[Value, Value, type], Value]:
    return lambda a, b, to: _cast(function(a, b), to)


def _truncated_division(a: Value, b: Value) -> Value:
    return np.sign(a) * np.sign(b) * (np.abs(a) // np.abs(b))


_SCALAR: dict[str, Callable[..., Value]] = {
    **{f"arith.{n}": _binary(f) for n, f in {
        "addf": np.add, "subf": np.subtract, "mulf": np.multiply, "divf": np.true_divide,
        "maximumf": np.maximum, "minimumf": np.minimum, "maxnumf": np.fmax, "minnumf": np.fmin, "remf": np.fmod,
        "addi": np.add, "subi": np.subtract, "muli": np.multiply, "maxsi": np.maximum, "minsi": np.minimum,
        "andi": np.bitwise_and, "ori": np.bitwise_or, "xori": np.bitwise_xor,
        "floordivsi": np.floor_divide, "divsi": _truncated_division, "remsi": np.fmod,
    }.items()},
    **{f"arith.{n}": _cast for n in (
        "sitofp", "uitofp", "fptosi", "index_cast", "index_castui", "extf", "truncf", "extsi", "extui", "trunci"
    )},
    "arith.negf": _unary(np.negative),
    "arith.select": lambda c, a, b, to: _cast(np.where(c, a, b), to),
    **{f"math.{n}": _unary(f) for n, f in {
        "exp": np.exp, "expm1": np.expm1, "log": np.log, "log1p": np.log1p, "tanh": np.tanh, "sqrt": np.sqrt,
        "sin": np.sin, "cos": np.cos, "absf": np.abs, "absi": np.abs, "floor": np.floor, "ceil": np.ceil,
        "rsqrt": lambda a: 1 / np.sqrt(a), "isnan": np.isnan,
    }.items()},
    "math.powf": _binary(np.power),
    "math.fpowi": _binary(np.power),
    "math.ipowi": _binary(np.power),
    "math.erf": _erf,
}  # fmt: skip


def _compare(function: Callable[[Value, Value], Value], unordered: bool) -> Callable[[Value, Value], Value]:
    return lambda a, b: function(a, b) | (unordered & (np.isnan(a) | np.isnan(b)))


_ORDER = (np.equal, np.greater, np.greater_equal, np.less, np.less_equal, np.not_equal)
_COMPARE: dict[str, dict[int, Callable[[Value, Value], Value]]] = {
    "arith.cmpi": dict(enumerate([np.equal, np.not_equal, np.less, np.less_equal, np.greater, np.greater_equal] + [
        lambda a, b, f=f: f(np.uint64(a), np.uint64(b)) for f in (np.less, np.less_equal, np.greater, np.greater_equal)
    ])),
    "arith.cmpf": {
        **{1 + i: _compare(f, False) for i, f in enumerate(_ORDER)},
        7: lambda a, b: ~(np.isnan(a) | np.isnan(b)),
        **{8 + i: _compare(f, True) for i, f in enumerate(_ORDER)},
        14: lambda a, b: np.isnan(a) | np.isnan(b),
    },
}  # fmt: skip


def _isl_kinds() -> tuple[object, object]:
    import islpy

    return islpy.dim_type.param, islpy.dim_type.set


_PARAM, _SET = _isl_kinds()
