"""Kernels of cells, run against numpy in float64."""

import ctypes
from dataclasses import dataclass

import numpy as np
from equations import cell_of, columns, matmul, pointwise, read, sigmoid, system, zeros
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch_mlir import ir
from torch_mlir.dialects import bufferization, func
from torch_mlir.execution_engine import ExecutionEngine
from torch_mlir.runtime import get_ranked_memref_descriptor

from parc.codegen.cell import Cell, Contraction
from parc.codegen.irtools import run_pipeline
from parc.codegen.kernel import Kernel, VectorTarget, emit_kernel
from parc.codegen.packing import pack

Array = NDArray[np.generic]
TARGETS = (VectorTarget.host(), VectorTarget(), VectorTarget(512, 32))

LOWER = (
    "one-shot-bufferize,canonicalize,cse,canonicalize,convert-linalg-to-loops,convert-vector-to-scf,"
    "expand-strided-metadata,lower-affine,convert-scf-to-cf,convert-vector-to-llvm,convert-math-to-llvm,"
    "convert-math-to-libm,convert-to-llvm,reconcile-unrealized-casts"
)


@dataclass
class Compiled:
    """The kernel of a system's only equation, ready to run on arrays by name."""

    source: ir.Module  # keeps the values of the cell alive
    cell: Cell
    kernel: Kernel
    engine: ExecutionEngine
    names: list[str]  # of the operands' arrays

    def __call__(self, arrays: dict[str, Array], bounds: list[tuple[int, int, int, int]]) -> None:
        """Run point t = 1 for every (r0, r1, u0, u1); arrays have their leading time dimension, unless captured."""
        values: list[Array | int] = []
        for number, (operand, name) in enumerate(zip(self.cell.operands, self.names, strict=True)):
            array = arrays[name]
            point = 2 if operand.kind == "write" else 1
            offset = 0 if operand.access is None else point * int(np.prod(array.shape[1:]))
            if operand.kind == "weight":
                layout = self.kernel.layouts[number]
                packed = np.empty(layout.size, array.dtype)
                self._invoke(f"pack{number}", array, packed)
                array = packed
            values += [array.reshape(-1), offset]
        for bound in bounds:
            self._invoke("entry", *bound, *values)

    def _invoke(self, name: str, *values: Array | int) -> None:
        pointers = [
            ctypes.pointer(ctypes.c_long(v))
            if isinstance(v, int)
            else ctypes.pointer(ctypes.pointer(get_ranked_memref_descriptor(v)))
            for v in values
        ]
        self.engine.invoke(name, *pointers)


def compiled(
    body: str, known: dict[str, str], written: dict[str, str], target: VectorTarget, maps: str = ""
) -> Compiled:
    source, cell = cell_of(maps + system(body, known, written))
    assert cell is not None
    arguments = ["T", "B", *known]
    names = [
        arguments[ir.BlockArgument(o.array).arg_number]
        if isinstance(o.array.owner, ir.Block)
        else ir.StringAttr(o.array.owner.attributes["name"]).value
        for o in cell.operands
    ]
    with source.context, ir.Location.unknown():
        module = ir.Module.create()
        kernel = emit_kernel(module, cell, "kernel", target)
        with ir.InsertionPoint(module.body):
            _entry(module)
            for number in kernel.layouts:
                _packer(number, cell, kernel)
        assert module.operation.verify()
        run_pipeline(module, LOWER, "test")
        return Compiled(source, cell, kernel, ExecutionEngine(module, opt_level=0), names)


def _entry(module: ir.Module) -> None:
    kernel = next(op for op in module.body.operations if op.name.value == "kernel")
    entry = func.FuncOp("entry", kernel.function_type.value)
    entry.attributes["llvm.emit_c_interface"] = ir.UnitAttr.get()
    with ir.InsertionPoint(entry.add_entry_block()):
        func.CallOp([], ir.FlatSymbolRefAttr.get("kernel"), list(entry.arguments))
        func.ReturnOp([])


def _packer(number: int, cell: Cell, kernel: Kernel) -> None:
    type_ = cell.operands[number].array.type
    size = kernel.layouts[number].size
    types = [ir.MemRefType.get(type_.shape, type_.element_type), ir.MemRefType.get([size], type_.element_type)]
    packer = func.FuncOp(f"pack{number}", ir.FunctionType.get(types, []))
    packer.attributes["llvm.emit_c_interface"] = ir.UnitAttr.get()
    with ir.InsertionPoint(packer.add_entry_block()):
        weight = bufferization.to_tensor(type_, packer.arguments[0], restrict=True)
        packed = pack(weight, kernel.layouts[number])
        bufferization.materialize_in_destination(None, packed, packer.arguments[1], restrict=True, writable=True)
        func.ReturnOp([])


def solve(
    program: Compiled, arrays: dict[str, Array], written: dict[str, tuple[int, ...]], shares: tuple[int, int]
) -> list[Array]:
    """The written tiles at t + 1 = 2, computed in so many shares of rows and of unit tiles.

    `arrays` has the values at t = 1 of everything that is read; `written` the shapes of the written tiles.
    """
    dtype = np.dtype("f4" if str(program.cell.dtype) == "f32" else "f8")
    rows = int(np.prod(next(iter(written.values()))[:-1]))
    buffers = {name: np.full((4, *shape), 123.0, dtype) for name, shape in written.items()}
    for operand, name in zip(program.cell.operands, program.names, strict=True):
        if operand.access is None:
            buffers[name] = arrays[name]
        elif operand.kind != "write":
            value = arrays[name]
            buffers.setdefault(name, np.full((2, *value.shape), 321.0, value.dtype))[1] = value
    before = {name: buffers[name].copy() for name in written}
    tile, units = program.kernel.unit_tile, program.cell.units
    tiles = -(-units // tile)
    program(
        buffers,
        [
            (rows * i // shares[0], rows * (i + 1) // shares[0], tiles * j // shares[1] * tile, min(stop, units))
            for i in range(shares[0])
            for j in range(shares[1])
            for stop in [tiles * (j + 1) // shares[1] * tile]
        ],
    )
    for name, old in before.items():
        np.testing.assert_array_equal(np.delete(buffers[name], 2, 0), np.delete(old, 2, 0), "wrote outside its tile")
    return [buffers[name][2] for name in written]


def check(
    program: Compiled, arrays: dict[str, Array], expected: dict[str, Array], shares: tuple[int, int] = (1, 1)
) -> None:
    """The kernel gives `expected`, and the same bits however rows and units are shared."""
    written = {name: value.shape for name, value in expected.items()}
    f32 = str(program.cell.dtype) == "f32"
    whole = solve(program, arrays, written, (1, 1))
    for got, want in zip(whole, expected.values(), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5 if f32 else 1e-12, atol=5e-6 if f32 else 1e-13)
    for got, want in zip(solve(program, arrays, written, shares), whole, strict=True):
        np.testing.assert_array_equal(got, want)


def logistic(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def random(seed: int, dtype: str, *shape: int) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype("f4" if dtype == "f32" else "f8")


counts = st.integers(1, 15)
units_ = st.integers(1, 70)
dtypes = st.sampled_from(["f32", "f64"])
targets = st.sampled_from(TARGETS)
shares_ = st.tuples(st.integers(1, 3), st.integers(1, 3))
few = settings(max_examples=8)  # each compiles a kernel for every number of rows


@few
@given(rows=counts, units=units_, dtype=dtypes, target=targets, shares=shares_)
def test_lstm_step(rows: int, units: int, dtype: str, target: VectorTarget, shares: tuple[int, int]) -> None:
    gates, state = f"?x{4 * units}x{dtype}", f"?x{units}x{dtype}"
    body = read("x_t", "x", gates) + read("h_t", "h", state) + read("c_t", "c", state) + zeros("z", gates)
    body += matmul("p", "h_t", state, "u", f"{units}x{4 * units}x{dtype}", "z", gates)
    body += f"%g = linalg.add ins(%p, %x_t : tensor<{gates}>, tensor<{gates}>) outs(%z_e : tensor<{gates}>)"
    body += f" -> tensor<{gates}>\n"
    for number, name in enumerate("ifno"):
        body += columns(name, "g", gates, number * units, units)
    code = sigmoid("si", "i_v", dtype) + sigmoid("sf", "f_v", dtype)
    code += f"""%tn = math.tanh %n_v : {dtype}
      %keep = arith.mulf %sf, %c_t_v : {dtype}
      %add = arith.mulf %si, %tn : {dtype}
      %y = arith.addf %keep, %add : {dtype}"""
    body += pointwise("c_new", code, [(name, state, "id") for name in ("i", "f", "n", "c_t")], state)
    code = sigmoid("so", "o_v", dtype)
    code += f"%tc = math.tanh %c_new_v : {dtype}\n%y = arith.mulf %so, %tc : {dtype}"
    body += pointwise("h_new", code, [("o", state, "id"), ("c_new", state, "id")], state)
    known = {"x": f"?x{gates}", "u": f"{units}x{4 * units}x{dtype}"}
    program = compiled(body, known, {"h": state, "c": state}, target)

    x, h, c = random(1, dtype, rows, 4 * units), random(2, dtype, rows, units), random(3, dtype, rows, units)
    u = random(4, dtype, units, 4 * units)
    i, f, n, o = np.split(x + h.astype("f8") @ u, 4, axis=1)
    c_new = logistic(f) * c + logistic(i) * np.tanh(n)
    check(program, {"x": x, "h": h, "c": c, "u": u}, {"h": logistic(o) * np.tanh(c_new), "c": c_new}, shares)


@few
@given(rows=counts, units=units_, depth=units_, dtype=dtypes, target=targets, shares=shares_)
def test_gru_step(rows: int, units: int, depth: int, dtype: str, target: VectorTarget, shares: tuple[int, int]) -> None:
    """Two products with weights of their own; their sums are shared by two gates and apart in the third."""
    gates, state, inputs = f"?x{3 * units}x{dtype}", f"?x{units}x{dtype}", f"?x{depth}x{dtype}"
    w_shape, u_shape = f"{depth}x{3 * units}x{dtype}", f"{units}x{3 * units}x{dtype}"
    body = read("x_t", "x", inputs) + read("h_t", "h", state) + zeros("z", gates)
    body += f"%bias = linalg.broadcast ins(%b : tensor<{3 * units}x{dtype}>) outs(%z_e : tensor<{gates}>)"
    body += " dimensions = [0]\n"
    body += matmul("p", "x_t", inputs, "w", w_shape, "bias", gates) + matmul(
        "q", "h_t", state, "u", u_shape, "z", gates
    )
    for number, name in enumerate("rzn"):
        body += columns(f"x{name}", "p", gates, number * units, units)
        body += columns(f"h{name}", "q", gates, number * units, units)
    code = f"%s = arith.addf %xr_v, %hr_v : {dtype}\n" + sigmoid("r", "s", dtype)
    code += f"%zs = arith.addf %xz_v, %hz_v : {dtype}\n" + sigmoid("zg", "zs", dtype)
    code += f"""%rh = arith.mulf %r, %hn_v : {dtype}
      %sn = arith.addf %xn_v, %rh : {dtype}
      %n = math.tanh %sn : {dtype}
      %d = arith.subf %h_t_v, %n : {dtype}
      %zd = arith.mulf %zg, %d : {dtype}
      %y = arith.addf %n, %zd : {dtype}"""
    names = ("xr", "xz", "xn", "hr", "hz", "hn", "h_t")
    body += pointwise("h_new", code, [(name, state, "id") for name in names], state)
    known = {"x": f"?x{inputs}", "w": w_shape, "u": u_shape, "b": f"{3 * units}x{dtype}"}
    program = compiled(body, known, {"h": state}, target)
    assert sorted(len(n.products) for n in program.cell.nodes if isinstance(n, Contraction)) == [1, 1, 2, 2]

    x, h, b = random(1, dtype, rows, depth), random(2, dtype, rows, units), random(3, dtype, 3 * units)
    w, u = random(4, dtype, depth, 3 * units), random(5, dtype, units, 3 * units)
    xr, xz, xn = np.split(x.astype("f8") @ w + b, 3, axis=1)
    hr, hz, hn = np.split(h.astype("f8") @ u, 3, axis=1)
    z, n = logistic(xz + hz), np.tanh(xn + logistic(xr + hr) * hn)
    check(program, {"x": x, "h": h, "w": w, "u": u, "b": b}, {"h": n + z * (h - n)}, shares)


@few
@given(rows=counts, units=units_, depth=units_, dtype=dtypes, target=targets, shares=shares_)
def test_concatenated_input_and_transposed_weight(
    rows: int, units: int, depth: int, dtype: str, target: VectorTarget, shares: tuple[int, int]
) -> None:
    """tanh([x, h] W^T + b) with W as PyTorch keeps it: `[units, inputs]`."""
    inputs, state, both = f"?x{depth}x{dtype}", f"?x{units}x{dtype}", f"?x{depth + units}x{dtype}"
    w_shape, t_shape = f"{units}x{depth + units}x{dtype}", f"{depth + units}x{units}x{dtype}"
    body = read("x_t", "x", inputs) + read("h_t", "h", state) + zeros("z", state)
    body += f"%xh = tensor.concat dim(1) %x_t, %h_t : (tensor<{inputs}>, tensor<{state}>) -> tensor<{both}>\n"
    body += f"""%t_e = tensor.empty() : tensor<{t_shape}>
      %wt = linalg.transpose ins(%w : tensor<{w_shape}>) outs(%t_e : tensor<{t_shape}>) permutation = [1, 0]
    """
    body += matmul("p", "xh", both, "wt", t_shape, "z", state)
    code = f"%s = arith.addf %p_v, %b_v : {dtype}\n%y = math.tanh %s : {dtype}"
    body += pointwise("h_new", code, [("p", state, "id"), ("b", f"{units}x{dtype}", "row")], state)
    known = {"x": f"?x{inputs}", "w": w_shape, "b": f"{units}x{dtype}"}
    program = compiled(body, known, {"h": state}, target)
    (weight,) = (o for o in program.cell.operands if o.kind == "weight")
    assert weight.transposed
    assert [(p.row, p.depth) for p in program.cell.products] == [(0, depth), (depth, units)]

    x, h, b = random(1, dtype, rows, depth), random(2, dtype, rows, units), random(3, dtype, units)
    w = random(4, dtype, units, depth + units)
    expected = np.tanh(np.hstack([x, h]).astype("f8") @ w.T + b)
    check(program, {"x": x, "h": h, "w": w, "b": b}, {"h": expected}, shares)


@few
@given(rows=counts, units=units_, depth=units_, target=targets, shares=shares_)
def test_some_columns_of_a_weight(
    rows: int, units: int, depth: int, target: VectorTarget, shares: tuple[int, int]
) -> None:
    """a * c, where x W is [a, b, c]: the packed weight has no b."""
    inputs, state, gates = f"?x{depth}xf32", f"?x{units}xf32", f"?x{3 * units}xf32"
    body = read("x_t", "x", inputs) + zeros("z", gates)
    body += matmul("p", "x_t", inputs, "w", f"{depth}x{3 * units}xf32", "z", gates)
    body += columns("a", "p", gates, 0, units) + columns("c", "p", gates, 2 * units, units)
    body += pointwise("h_new", "%y = arith.mulf %a_v, %c_v : f32", [("a", state, "id"), ("c", state, "id")], state)
    program = compiled(body, {"x": f"?x{inputs}", "w": f"{depth}x{3 * units}xf32"}, {"h": state}, target)
    (layout,) = program.kernel.layouts.values()
    assert layout.columns == (0, 2 * units)
    x, w = random(1, "f32", rows, depth), random(2, "f32", depth, 3 * units)
    a, _, c = np.split(x.astype("f8") @ w, 3, axis=1)
    check(program, {"x": x, "w": w}, {"h": a * c}, shares)


@few
@given(rows=counts, units=units_, dtype=dtypes, target=targets, shares=shares_)
def test_pointwise_with_broadcasts(
    rows: int, units: int, dtype: str, target: VectorTarget, shares: tuple[int, int]
) -> None:
    """A masked state: a scalar per row, a vector over units, a comparison and a select; no product."""
    state = f"?x{units}x{dtype}"
    body = read("x_t", "x", state) + read("m_t", "m", f"?x{dtype}") + read("h_t", "h", state)
    code = f"""%half = arith.constant 0.5 : {dtype}
      %on = arith.cmpf ogt, %m_t_v, %half : {dtype}
      %s = arith.mulf %x_t_v, %a_v : {dtype}
      %y = arith.select %on, %s, %h_t_v : {dtype}"""
    inputs = [("x_t", state, "id"), ("m_t", f"?x{dtype}", "column"), ("a", f"{units}x{dtype}", "row")]
    body += pointwise("h_new", code, [*inputs, ("h_t", state, "id")], state)
    known = {"x": f"?x{state}", "m": f"?x?x{dtype}", "a": f"{units}x{dtype}"}
    program = compiled(body, known, {"h": state}, target)
    x, h, a = random(1, dtype, rows, units), random(2, dtype, rows, units), random(3, dtype, units)
    m = random(4, dtype, rows)
    check(program, {"x": x, "m": m, "a": a, "h": h}, {"h": np.where(m[:, None] > 0.5, x * a, h)}, shares)


@few
@given(units=units_, depth=units_, target=targets, shares=shares_)
def test_tile_without_rows(units: int, depth: int, target: VectorTarget, shares: tuple[int, int]) -> None:
    """An unbatched cell: every point is one row."""
    inputs, state = f"{depth}xf32", f"{units}xf32"
    body = read("x_t", "x", inputs) + zeros("z", state)
    body += f"""%h_new = linalg.vecmat ins(%x_t, %w : tensor<{inputs}>, tensor<{depth}x{units}xf32>)
      outs(%z : tensor<{state}>) -> tensor<{state}>
    """
    program = compiled(body, {"x": f"?x{inputs}", "w": f"{depth}x{units}xf32"}, {"h": state}, target)
    x, w = random(1, "f32", 1, depth), random(2, "f32", depth, units)
    check(program, {"x": x, "w": w}, {"h": x.astype("f8") @ w}, shares)


@few
@given(rows=counts, units=units_, dtype=dtypes, target=targets, shares=shares_)
def test_parts_of_a_written_tile(
    rows: int, units: int, dtype: str, target: VectorTarget, shares: tuple[int, int]
) -> None:
    """One tile is [x W + a, a], a is a state of its own; a comes as the middle of `[rows, 3, units]`."""
    state, both, three = f"?x{units}x{dtype}", f"?x{2 * units}x{dtype}", f"?x{3 * units}x{dtype}"
    body = read("x_t", "x", three) + zeros("z", state)
    body += f"""%split = tensor.expand_shape %x_t [[0], [1, 2]] output_shape [%B, 3, {units}]
        : tensor<{three}> into tensor<?x3x{units}x{dtype}>
      %a = tensor.extract_slice %split[0, 1, 0] [%B, 1, {units}] [1, 1, 1]
        : tensor<?x3x{units}x{dtype}> to tensor<{state}>
    """
    body += matmul("p", "x_t", three, "w", f"{3 * units}x{units}x{dtype}", "a", state)
    body += f"%both = tensor.concat dim(1) %p, %a : (tensor<{state}>, tensor<{state}>) -> tensor<{both}>\n"
    body = body.replace("%both =", "%h_new =") + f"%c_new = tensor.cast %a : tensor<{state}> to tensor<{state}>\n"
    program = compiled(body, {"x": f"?x{three}", "w": f"{3 * units}x{units}x{dtype}"}, {"h": both, "c": state}, target)
    assert program.cell.units == units
    x, w = random(1, dtype, rows, 3 * units), random(2, dtype, 3 * units, units)
    a = x[:, units : 2 * units]
    check(program, {"x": x, "w": w}, {"h": np.hstack([x.astype("f8") @ w + a, a]), "c": a}, shares)


@few
@given(rows=counts, depth=units_, dtype=dtypes, target=targets)
def test_one_number_per_row(rows: int, depth: int, dtype: str, target: VectorTarget) -> None:
    """A product with a vector: every element of a `[rows]` tile is a row of one unit."""
    inputs = f"?x{depth}x{dtype}"
    body = read("x_t", "x", inputs) + zeros("z", f"?x{dtype}")
    body += f"""%h_new = linalg.matvec ins(%x_t, %w : tensor<{inputs}>, tensor<{depth}x{dtype}>)
      outs(%z : tensor<?x{dtype}>) -> tensor<?x{dtype}>
    """
    program = compiled(body, {"x": f"?x{inputs}", "w": f"{depth}x{dtype}"}, {"h": f"?x{dtype}"}, target)
    x, w = random(1, dtype, rows, depth), random(2, dtype, depth)
    check(program, {"x": x, "w": w}, {"h": (x.astype("f8") @ w)[:, None]}, (2, 1))


@few
@given(rows=counts, units=units_, inner=st.integers(2, 5), dtype=dtypes, target=targets, shares=shares_)
def test_rows_that_share_rows_of_operands(
    rows: int, units: int, inner: int, dtype: str, target: VectorTarget, shares: tuple[int, int]
) -> None:
    """A matrix state `[rows, inner, units]`: decay[inner, units] * s + key[rows, inner] * value[rows, units]."""
    state, key, value = f"?x{inner}x{units}x{dtype}", f"?x{inner}x{dtype}", f"?x{units}x{dtype}"
    body = read("k_t", "k", key) + read("v_t", "v", value) + read("s_t", "s", state) + read("m_t", "m", "?xi1")
    body += f"""%e = tensor.empty(%B) : tensor<{state}>
      %s_new = linalg.generic {{indexing_maps = [#i, #ij, #ik, #jk, #all, #all],
        iterator_types = ["parallel", "parallel", "parallel"]}}
        ins(%m_t, %k_t, %v_t, %decay, %s_t : tensor<?xi1>, tensor<{key}>, tensor<{value}>,
            tensor<{inner}x{units}x{dtype}>, tensor<{state}>) outs(%e : tensor<{state}>) {{
      ^bb0(%mask: i1, %a: {dtype}, %b: {dtype}, %d: {dtype}, %c: {dtype}, %o: {dtype}):
        %ab = arith.mulf %a, %b : {dtype}
        %dc = arith.mulf %d, %c : {dtype}
        %sum = arith.addf %ab, %dc : {dtype}
        %y = arith.select %mask, %sum, %c : {dtype}
        linalg.yield %y : {dtype}
      }} -> tensor<{state}>
    """
    maps = {"i": "i", "ij": "i, j", "ik": "i, k", "jk": "j, k", "all": "i, j, k"}
    text = "".join(f"#{name} = affine_map<(i, j, k) -> ({dims})>\n" for name, dims in maps.items())
    known = {"k": f"?x{key}", "v": f"?x{value}", "m": "?x?xi1", "decay": f"{inner}x{units}x{dtype}"}
    program = compiled(body, known, {"s": state}, target, text)

    k, v, s = random(1, dtype, rows, inner), random(2, dtype, rows, units), random(3, dtype, rows, inner, units)
    decay, mask = random(4, dtype, inner, units), np.arange(rows) % 3 != 1
    expected = np.where(mask[:, None, None], k[:, :, None] * v[:, None] + decay * s, s)
    check(program, {"k": k, "v": v, "s": s, "m": mask, "decay": decay}, {"s": expected}, shares)


@few
@given(rows=counts, units=units_, dtype=dtypes, target=targets, shares=shares_)
def test_normalised_units(rows: int, units: int, dtype: str, target: VectorTarget, shares: tuple[int, int]) -> None:
    """A softmax of x + v: reductions of computed values along the units, one of them around another."""
    state = f"?x{units}x{dtype}"
    body = read("x_t", "x", state) + f"%low = arith.constant -3.0e+38 : {dtype}\n%zero = arith.constant 0.0 : {dtype}\n"
    body += pointwise(
        "a", f"%y = arith.addf %x_t_v, %v_v : {dtype}", [("x_t", state, "id"), ("v", f"{units}x{dtype}", "row")], state
    )
    reduce = f"""%{{0}}_e = tensor.empty(%B) : tensor<?x{dtype}>
      %{{0}}_s = linalg.fill ins(%{{1}} : {dtype}) outs(%{{0}}_e : tensor<?x{dtype}>) -> tensor<?x{dtype}>
      %{{0}} = linalg.reduce ins(%{{2}} : tensor<{state}>) outs(%{{0}}_s : tensor<?x{dtype}>) dimensions = [1]
        (%in: {dtype}, %so_far: {dtype}) {{{{
          %r = arith.{{3}} %in, %so_far : {dtype}
          linalg.yield %r : {dtype}
        }}}}
    """
    body += reduce.format("m", "low", "a", "maximumf")
    code = f"%d = arith.subf %a_v, %m_v : {dtype}\n%y = math.exp %d : {dtype}"
    body += pointwise("e", code, [("a", state, "id"), ("m", f"?x{dtype}", "column")], state)
    body += reduce.format("n", "zero", "e", "addf")
    code = f"%y = arith.divf %e_v, %n_v : {dtype}"
    body += pointwise("h_new", code, [("e", state, "id"), ("n", f"?x{dtype}", "column")], state)
    program = compiled(body, {"x": f"?x{state}", "v": f"{units}x{dtype}"}, {"h": state}, target)
    x, v = random(1, dtype, rows, units), random(2, dtype, units)
    e = np.exp(x.astype("f8") + v)
    check(program, {"x": x, "v": v}, {"h": e / e.sum(1, keepdims=True)}, shares)


@few
@given(rows=counts, units=units_, depth=st.integers(1, 9), dtype=dtypes, target=targets, shares=shares_)
def test_sum_over_rows_of_a_tile(
    rows: int, units: int, depth: int, dtype: str, target: VectorTarget, shares: tuple[int, int]
) -> None:
    """What linear attention reads from its matrix state: query[rows, depth] times state[rows, depth, units]."""
    state, query = f"?x{depth}x{units}x{dtype}", f"?x{depth}x{dtype}"
    body = read("s_t", "s", state) + read("q_t", "q", query) + zeros("z", f"?x{units}x{dtype}")
    body += f"""%h_new = linalg.generic {{indexing_maps = [#ik, #ikj, #ij],
        iterator_types = ["parallel", "parallel", "reduction"]}}
        ins(%q_t, %s_t : tensor<{query}>, tensor<{state}>) outs(%z : tensor<?x{units}x{dtype}>) {{
      ^bb0(%a: {dtype}, %b: {dtype}, %so_far: {dtype}):
        %ab = arith.mulf %a, %b : {dtype}
        %y = arith.addf %so_far, %ab : {dtype}
        linalg.yield %y : {dtype}
      }} -> tensor<?x{units}x{dtype}>
    """
    maps = {"ik": "i, k", "ikj": "i, k, j", "ij": "i, j"}
    text = "".join(f"#{name} = affine_map<(i, j, k) -> ({dims})>\n" for name, dims in maps.items())
    known = {"s": f"?x{state}", "q": f"?x{query}"}
    program = compiled(body, known, {"h": f"?x{units}x{dtype}"}, target, text)
    s, q = random(1, dtype, rows, depth, units), random(2, dtype, rows, depth)
    check(program, {"s": s, "q": q}, {"h": np.einsum("bk,bkj->bj", q.astype("f8"), s)}, shares)
