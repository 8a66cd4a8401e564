"""Executables, run against the interpreter: systems, plain tensor code, checks, threads."""

import threading
from collections.abc import Sequence
from functools import cache

import numpy as np
import pytest
from interpreter import evaluate
from torch_mlir import ir

from parc import CallError, CompileError, dialect
from parc.jit import cpu_executable
from parc.pipelines import run_pipeline, stage_steps
from parc.runtime import Team
from parc.runtime.executable import Buffer

Array = np.ndarray


class Program:
    """A module with a `@main` whose systems have schedules, compiled for a number of threads."""

    def __init__(self, text: str, threads: int) -> None:
        context = ir.Context()
        dialect.load(context)
        self.source = ir.Module.parse(text, context)
        module = ir.Module.parse(text, context)
        run_pipeline(module, [*stage_steps("loops"), *stage_steps("llvm")])
        self.executable = cpu_executable(module, Team(threads))

    def expected(self, symbols: Sequence[int], inputs: Sequence[Array], parameters: Sequence[Array]) -> list[Array]:
        """The results by the interpreter."""
        return [np.asarray(r) for r in evaluate(self.source, symbols, [*inputs, *parameters])]

    def __call__(self, symbols: Sequence[int], inputs: Sequence[Array], parameters: Sequence[Array]) -> list[Array]:
        prepared = self.executable.prepare([Buffer.of(p) for p in parameters], len(symbols))
        results = [np.empty(r.shape, r.dtype) for r in self.expected(symbols, inputs, parameters)]
        for result in results:
            result.view(np.uint8)[...] = 0xA5  # garbage
        self.executable.run(symbols, [Buffer.of(a) for a in (*inputs, *parameters, *prepared, *results)])
        return results


def close(got: Sequence[Array], want: Sequence[Array]) -> None:
    """Equal up to rounding, and NaN and infinite at the same places."""
    for g, w in zip(got, want, strict=True):
        np.testing.assert_allclose(g, w, rtol=1e-5, atol=1e-5)


def check(text: str, symbols: Sequence[int], inputs: Sequence[Array], parameters: Sequence[Array] = ()) -> None:
    """The program gives what the interpreter gives, with one thread and, bit by bit the same, with more."""
    single, several = Program(text, 1), Program(text, 3)
    first = single(symbols, inputs, parameters)
    close(first, single.expected(symbols, inputs, parameters))
    for a, b in zip(first, several(symbols, inputs, parameters), strict=True):
        np.testing.assert_array_equal(a, b)


# Two layers, `h[l, t + 1] = tanh(y[l, t] W[l] + h[l, t] U[l])`, with the input products as equations of their own.

TILE = 4
SCHEDULES = {
    "layers": lambda layer: (f"({layer}, t floordiv {TILE}, 0, 0)", f"({layer}, t floordiv {TILE}, 1, t mod {TILE})"),
    "wavefront": lambda layer: (
        f"(t floordiv {TILE} + {layer}, 0, 0, 0)",
        f"(t floordiv {TILE} + {layer}, 1, t mod {TILE}, 0)",
    ),
}


def product(rows: str, weight: str, depth: int, units: int) -> str:
    return f"""
      %zero = arith.constant 0.0 : f32
      %e = tensor.empty(%B) : tensor<?x{units}xf32>
      %f = linalg.fill ins(%zero : f32) outs(%e : tensor<?x{units}xf32>) -> tensor<?x{units}xf32>
      %p = linalg.matmul ins(%{rows}, %{weight} : tensor<?x{depth}xf32>, tensor<{depth}x{units}xf32>)
        outs(%f : tensor<?x{units}xf32>) -> tensor<?x{units}xf32>"""


def layer(number: int, source: str, at: str, depth: int, units: int, times: tuple[str, str]) -> str:
    tile, array = f"tensor<?x{units}xf32>", f"tensor<?x?x{units}xf32>"
    domain = f"domain = affine_set<(t)[T, B] : (t >= 0, -t + T - 1 >= 0)>, owner = affine_map<(t)[T, B] -> ({number})>"
    return f"""
    "parc.equation"() ({{
    ^bb0(%t: index):
      %in = "parc.read"(%{source}) {{at = affine_map<(t)[T, B] -> ({at})>}}
        : (tensor<?x?x{depth}xf32>) -> tensor<?x{depth}xf32>
      {product("in", f"W{number}", depth, units)}
      "parc.write"(%p, %p{number}) {{at = affine_map<(t)[T, B] -> (t)>}} : ({tile}, {array}) -> ()
    }}) {{name = "product{number}", {domain}, schedule = affine_map<(t)[T, B] -> {times[0]}>}} : () -> ()
    "parc.equation"() ({{
    ^bb0(%t: index):
      %state = "parc.read"(%h{number}) {{at = affine_map<(t)[T, B] -> (t)>}} : ({array}) -> {tile}
      %in = "parc.read"(%p{number}) {{at = affine_map<(t)[T, B] -> (t)>}} : ({array}) -> {tile}
      {product("state", f"U{number}", units, units)}
      %n = linalg.generic {{indexing_maps = [affine_map<(i, j) -> (i, j)>, affine_map<(i, j) -> (i, j)>,
          affine_map<(i, j) -> (i, j)>], iterator_types = ["parallel", "parallel"]}}
          ins(%p, %in : {tile}, {tile}) outs(%e : {tile}) {{
      ^bb0(%a: f32, %b: f32, %o: f32):
        %s = arith.addf %a, %b : f32
        %y = math.tanh %s : f32
        linalg.yield %y : f32
      }} -> {tile}
      "parc.write"(%n, %h{number}) {{at = affine_map<(t)[T, B] -> (t + 1)>}} : ({tile}, {array}) -> ()
    }}) {{name = "cell{number}", {domain}, schedule = affine_map<(t)[T, B] -> {times[1]}>}} : () -> ()"""


def stack(strategy: str, distribute: str, features: int, units: int) -> str:
    """x [T, B, features] and h0 [2, B, units] -> the states of the second layer, T + 1 of them."""
    array, given = f"tensor<?x?x{units}xf32>", f"tensor<2x?x{units}xf32>"
    parameters = [("W0", features), ("U0", units), ("W1", units), ("U1", units)]
    arguments = ", ".join(
        f'%{name}: tensor<{depth}x{units}xf32> {{parc.kind = "parameter", parc.name = "{name}"}}'
        for name, depth in parameters
    )
    unknowns = "".join(
        f"""%{name}{i} = "parc.unknown"() {{name = "{name}{i}",
              shape = affine_map<()[T, B] -> ({extent}, B, {units})>}} : () -> {array}\n"""
        for i in (0, 1)
        for name, extent in (("p", "T"), ("h", "T + 1"))
    )
    boundaries = "".join(
        f""""parc.boundary"(%h{i}, %h) {{domain = affine_set<()[T, B] : (0 == 0)>,
              to = affine_map<()[T, B] -> (0)>, of = affine_map<()[T, B] -> ({i})>}} : ({array}, {given}) -> ()\n"""
        for i in (0, 1)
    )
    times = SCHEDULES[strategy]
    return f"""
    func.func @main(%T: index {{parc.kind = "symbol", parc.name = "T"}},
        %B: index {{parc.kind = "symbol", parc.name = "B"}},
        %x: tensor<?x?x{features}xf32> {{parc.shape = affine_map<()[T, B] -> (T, B, {features})>}},
        %h: {given} {{parc.shape = affine_map<()[T, B] -> (2, B, {units})>}}, {arguments})
        -> ({array} {{parc.shape = affine_map<()[T, B] -> (T + 1, B, {units})>}}) {{
      %s = "parc.system"(%T, %B) ({{
        {unknowns}
        {boundaries}
        {layer(0, "x", "t", features, units, times(0))}
        {layer(1, "h0", "t + 1", units, units, times(1))}
      }}) {{symbols = ["T", "B"], distribute = "{distribute}", strategy = "{strategy}"}}
        : (index, index) -> !parc.solution
      %y = "parc.array"(%s) {{name = "h1"}} : (!parc.solution) -> {array}
      return %y : {array}
    }}"""


@cache
def compiled_stack(strategy: str, distribute: str, features: int, units: int, threads: int) -> Program:
    return Program(stack(strategy, distribute, features, units), threads)


@pytest.mark.parametrize(("features", "units"), [(3, 5), (8, 16), (5, 40)])
@pytest.mark.parametrize(
    ("strategy", "distribute"),
    [("layers", "units"), ("wavefront", "units"), ("wavefront", "points"), ("layers", "rows")],
)
def test_a_stack_with_any_schedule_sizes_and_threads(strategy: str, distribute: str, features: int, units: int) -> None:
    rng = np.random.default_rng(1)
    parameters = [rng.normal(size=(d, units)).astype("f") / 4 for d in (features, units, units, units)]
    for steps, batch in ((5, 3), (1, 1), (9, 7), (0, 2), (4, 0), (0, 0)):
        inputs = [rng.normal(size=s).astype("f") for s in ((steps, batch, features), (2, batch, units))]
        results = []
        for threads in (1, 2, 3):
            program = compiled_stack(strategy, distribute, features, units, threads)
            results.append(program((steps, batch), inputs, parameters)[0])
        close(results[:1], program.expected((steps, batch), inputs, parameters))
        for other in results[1:]:
            np.testing.assert_array_equal(results[0], other)


def test_nan_spreads_as_in_the_equations() -> None:
    program = compiled_stack("layers", "units", 8, 16, 2)
    rng = np.random.default_rng(2)
    parameters = [rng.normal(size=(d, 16)).astype("f") for d in (8, 16, 16, 16)]
    x, h = rng.normal(size=(6, 2, 8)).astype("f"), rng.normal(size=(2, 2, 16)).astype("f")
    x[3, 1, 2] = np.nan
    (got,) = program((6, 2), [x, h], parameters)
    assert np.isnan(got[4:, 1]).all() and not np.isnan(got[:4]).any() and not np.isnan(got[:, 0]).any()


def test_calls_from_several_threads_take_turns() -> None:
    program = compiled_stack("wavefront", "points", 8, 16, 2)
    rng = np.random.default_rng(3)
    parameters = [rng.normal(size=(d, 16)).astype("f") / 4 for d in (8, 16, 16, 16)]
    wrong = []

    def work(seed: int) -> None:
        mine = np.random.default_rng(seed)
        sizes = (3 + seed, 1 + seed)
        inputs = [mine.normal(size=s).astype("f") for s in ((sizes[0], sizes[1], 8), (2, sizes[1], 16))]
        want = program.expected(sizes, inputs, parameters)[0]
        for _ in range(20):
            if not np.allclose(program(sizes, inputs, parameters)[0], want, atol=1e-5):
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_changed_parameters_are_prepared_again() -> None:
    program = compiled_stack("layers", "units", 8, 16, 1)
    rng = np.random.default_rng(4)
    inputs = [rng.normal(size=s).astype("f") for s in ((3, 2, 8), (2, 2, 16))]
    for _ in range(2):
        parameters = [rng.normal(size=(d, 16)).astype("f") / 4 for d in (8, 16, 16, 16)]
        close(program((3, 2), inputs, parameters), program.expected((3, 2), inputs, parameters))


# Plain tensor code.

IDENTITY = "affine_map<(i, j) -> (i, j)>"


def elementwise(code: str, columns: int | None, element: str = "f32", result: str | None = None) -> str:
    """`@main` of one generic operation on x [N, columns] with the body `code`, which computes %y from %a."""
    width, result = "?" if columns is None else columns, result or element
    type_, out = f"tensor<?x{width}x{element}>", f"tensor<?x{width}x{result}>"
    sizes = "%N, %M" if columns is None else "%N"
    return f"""
    func.func @main(%N: index {{parc.kind = "symbol", parc.name = "N"}},
        %M: index {{parc.kind = "symbol", parc.name = "M"}},
        %x: {type_} {{parc.shape = affine_map<()[N, M] -> (N, {"M" if columns is None else columns})>}}) -> {out} {{
      %e = tensor.empty({sizes}) : {out}
      %r = linalg.generic {{indexing_maps = [{IDENTITY}, {IDENTITY}], iterator_types = ["parallel", "parallel"]}}
          ins(%x : {type_}) outs(%e : {out}) {{
      ^bb0(%a: {element}, %o: {result}):
        {code}
        linalg.yield %y : {result}
      }} -> {out}
      return %r : {out}
    }}"""


RELU = """%zero = arith.constant 0.0 : f32
  %more = arith.cmpf ugt, %a, %zero : f32
  %y = arith.select %more, %a, %zero : f32"""
SPECIAL = np.array([0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, 90.0, -110.0, 1e-30, 20.0, -20.0, 3.5], "f")


@pytest.mark.parametrize("columns", [None, 1, 3, 4, 5, 8, 13, 16, 33])
def test_elementwise_of_any_width(columns: int | None) -> None:
    width = 21 if columns is None else columns
    program = Program(elementwise(RELU, columns), 2)
    for rows in (0, 1, 5):
        x = np.resize(SPECIAL, (rows, width))
        close(program((rows, width), [x], ()), program.expected((rows, width), [x], ()))


@pytest.mark.parametrize(
    ("code", "element", "result"),
    [
        ("%y = math.tanh %a : f32", "f32", "f32"),
        ("%y = math.exp %a : f32", "f32", "f32"),
        ("%y = math.exp %a : f64", "f64", "f64"),
        ("%c = arith.constant 3 : i64\n%y = arith.muli %a, %c : i64", "i64", "i64"),
        ("%c = arith.constant 3 : i64\n%y = arith.remsi %c, %a : i64", "i64", "i64"),
        ("%y = arith.sitofp %a : i64 to f32", "i64", "f32"),
        ("%c = arith.constant 1.0 : f32\n%y = arith.cmpf olt, %a, %c : f32", "f32", "i1"),
        (
            "%i = linalg.index 1 : index\n%c = arith.index_cast %i : index to i64\n%y = arith.addi %a, %c : i64",
            "i64",
            "i64",
        ),
        ("%c = arith.constant 3 : i64\n%y = math.fpowi %a, %c : f32, i64", "f32", "f32"),
    ],
)
def test_elementwise_of_any_type(code: str, element: str, result: str) -> None:
    x = np.resize(SPECIAL, (4, 19)) if element[0] == "f" else np.arange(1, 77).reshape(4, 19)
    x = np.ascontiguousarray(x.astype({"f32": "f", "f64": "d", "i64": "q"}[element]))
    check(elementwise(code, None, element, result), (4, 19), [x])


def transposes(element: str, rows: int | None, columns: int | None) -> str:
    """`@main` that gives x [L, rows, columns] with its dimensions in three other orders."""
    extents = {"L": "?", "M": "?" if rows is None else rows, "N": "?" if columns is None else columns}
    whole = f"affine_map<()[L, M, N] -> (L, {rows or 'M'}, {columns or 'N'})>"
    orders = [(0, 2, 1), (2, 0, 1), (1, 2, 0)]

    def type_(order: Sequence[int]) -> str:
        return f"tensor<{'x'.join(str(list(extents.values())[d]) for d in order)}x{element}>"

    code = ""
    for i, order in enumerate(orders):
        sizes = ", ".join(f"%{list(extents)[d]}" for d in order if list(extents.values())[d] == "?")
        code += f"""
          %e{i} = tensor.empty({sizes}) : {type_(order)}
          %y{i} = linalg.transpose ins(%x : {type_(range(3))}) outs(%e{i} : {type_(order)})
              permutation = {list(order)}"""
    symbols = ", ".join(f'%{s}: index {{parc.kind = "symbol", parc.name = "{s}"}}' for s in extents)
    return f"""
    func.func @main({symbols}, %x: {type_(range(3))} {{parc.shape = {whole}}})
        -> ({", ".join(map(type_, orders))}) {{{code}
      return %y0, %y1, %y2 : {", ".join(map(type_, orders))}
    }}"""


@pytest.mark.parametrize(
    ("element", "rows", "columns"),
    [
        *[(element, None, None) for element in ("f32", "f64", "i64", "i8")],
        *[("f32", *sizes) for sizes in ((32, 64), (21, 37), (40, None), (5, 40), (40, 5))],
    ],
)
def test_transposes_of_any_size(element: str, rows: int | None, columns: int | None) -> None:
    program = Program(transposes(element, rows, columns), 2)
    for sizes in ((1, 1, 1), (2, 16, 32), (3, 33, 17), (17, 5, 40), (0, 40, 40), (2, 40, 0)):
        shape = (sizes[0], sizes[1] if rows is None else rows, sizes[2] if columns is None else columns)
        x = np.arange(np.prod(shape)).reshape(shape).astype(element.replace("f", "float").replace("i", "int"))
        for got, want in zip(program(shape, [x], ()), program.expected(shape, [x], ()), strict=True):
            np.testing.assert_array_equal(got, want)


def reduction(code: str, start: str, along: int) -> str:
    """`@main` that reduces x [N, M] along one dimension; `code` computes %y from the element %a and the total %o."""
    keep, type_ = "ji"[along], "tensor<?xf32>"
    kinds = ["parallel", "parallel"]
    kinds[along] = "reduction"
    iterators = ", ".join(f'"{k}"' for k in kinds)
    return f"""
    func.func @main(%N: index {{parc.kind = "symbol", parc.name = "N"}},
        %M: index {{parc.kind = "symbol", parc.name = "M"}},
        %x: tensor<?x?xf32> {{parc.shape = affine_map<()[N, M] -> (N, M)>}}) -> {type_} {{
      %s = arith.constant {start} : f32
      %e = tensor.empty({"%M" if along == 0 else "%N"}) : {type_}
      %f = linalg.fill ins(%s : f32) outs(%e : {type_}) -> {type_}
      %r = linalg.generic {{indexing_maps = [{IDENTITY}, affine_map<(i, j) -> ({keep})>], 
          iterator_types = [{iterators}]}}
          ins(%x : tensor<?x?xf32>) outs(%f : {type_}) {{
      ^bb0(%a: f32, %o: f32):
        {code}
        linalg.yield %y : f32
      }} -> {type_}
      return %r : {type_}
    }}"""


@pytest.mark.parametrize("along", [0, 1])
@pytest.mark.parametrize(
    ("code", "start"),
    [
        ("%y = arith.addf %o, %a : f32", "0.0"),
        ("%b = arith.mulf %a, %a : f32\n%y = arith.addf %b, %o : f32", "1.0"),
        ("%y = arith.maximumf %a, %o : f32", "0xFF800000"),
        ("%y = arith.minimumf %o, %a : f32", "0x7F800000"),
        ("%y = arith.subf %o, %a : f32", "0.0"),
    ],
)
def test_reductions(code: str, start: str, along: int) -> None:
    rng = np.random.default_rng(5)
    program = {threads: Program(reduction(code, start, along), threads) for threads in (1, 3)}
    for shape in ((3, 37), (6, 16), (1, 5), (4, 0), (0, 4), (2, 1)):
        x = rng.normal(size=shape).astype("f")
        x[:1, :1] = np.nan
        got = [p(shape, [x], ())[0] for p in program.values()]
        close(got[:1], program[1].expected(shape, [x], ()))
        np.testing.assert_array_equal(*got)


BATCH_MATMUL = """
  func.func @main(%N: index {parc.kind = "symbol", parc.name = "N"}, %M: index {parc.kind = "symbol", parc.name = "M"},
      %K: index {parc.kind = "symbol", parc.name = "K"},
      %x: tensor<2x?x?xf32> {parc.shape = affine_map<()[N, M, K] -> (2, N, K)>},
      %y: tensor<2x?x?xf32> {parc.shape = affine_map<()[N, M, K] -> (2, K, M)>}) -> tensor<2x?x?xf32> {
    %z = arith.constant 0.0 : f32
    %e = tensor.empty(%N, %M) : tensor<2x?x?xf32>
    %f = linalg.fill ins(%z : f32) outs(%e : tensor<2x?x?xf32>) -> tensor<2x?x?xf32>
    %r = linalg.batch_matmul ins(%x, %y : tensor<2x?x?xf32>, tensor<2x?x?xf32>) outs(%f : tensor<2x?x?xf32>)
      -> tensor<2x?x?xf32>
    return %r : tensor<2x?x?xf32>
  }"""


@pytest.mark.parametrize("sizes", [(1, 1, 1), (4, 16, 8), (5, 21, 3), (9, 3, 7), (3, 40, 0), (0, 5, 2)])
def test_products_of_two_inputs(sizes: tuple[int, int, int]) -> None:
    n, m, k = sizes
    rng = np.random.default_rng(6)
    check(BATCH_MATMUL, sizes, [rng.normal(size=s).astype("f") for s in ((2, n, k), (2, k, m))])


# What goes wrong.

EMBEDDING = """
  func.func @main(%N: index {parc.kind = "symbol", parc.name = "N"},
      %i: tensor<?xi64> {parc.shape = affine_map<()[N] -> (N)>},
      %w: tensor<7x12xf32> {parc.kind = "parameter", parc.name = "weight"}) -> tensor<?x12xf32> {
    %e = tensor.empty(%N) : tensor<?x12xf32>
    %c0 = arith.constant 0 : i64
    %c7 = arith.constant 7 : i64
    %r = linalg.generic {indexing_maps = [affine_map<(n, j) -> (n)>, affine_map<(n, j) -> (n, j)>],
        iterator_types = ["parallel", "parallel"]} ins(%i : tensor<?xi64>) outs(%e : tensor<?x12xf32>) {
    ^bb0(%a: i64, %o: f32):
      %row = arith.index_cast %a : i64 to index
      %column = linalg.index 1 : index
      %low = arith.cmpi sge, %a, %c0 : i64
      cf.assert %low, "index must be larger or equal to 0"
      %high = arith.cmpi slt, %a, %c7 : i64
      cf.assert %high, "index must be smaller than dim size"
      %v = tensor.extract %w[%row, %column] : tensor<7x12xf32>
      linalg.yield %v : f32
    } -> tensor<?x12xf32>
    return %r : tensor<?x12xf32>
  }"""


def test_a_failed_check_is_an_error_of_that_call_alone() -> None:
    program = Program(EMBEDDING, 2)
    weight = np.arange(84, dtype="f").reshape(7, 12)
    result = np.empty((3, 12), "f")

    def call(*indices: int) -> None:
        buffers = [Buffer.of(a) for a in (np.array(indices), weight, result)]
        program.executable.run((len(indices),), buffers)

    with pytest.raises(CallError, match="index must be smaller than dim size"):
        call(1, 7, 0)
    with pytest.raises(CallError, match="index must be larger or equal to 0"):
        call(0, 0, -1)
    call(6, 0, 2)
    np.testing.assert_array_equal(result, weight[[6, 0, 2]])


def test_sizes_are_not_negative() -> None:
    program = Program(EMBEDDING, 1)
    with pytest.raises(CallError, match="sizes cannot be negative"):
        program.executable.run((-1,), [])


def test_buffers_are_contiguous() -> None:
    with pytest.raises(CallError, match="C-contiguous"):
        Buffer.of(np.zeros((4, 4))[:, :2])


def test_a_size_that_only_the_data_tells_is_refused() -> None:
    text = """func.func @main(%n: tensor<i64>) -> tensor<?xf32> {
      %i = tensor.extract %n[] : tensor<i64>
      %s = arith.index_cast %i : i64 to index
      %e = tensor.empty(%s) : tensor<?xf32>
      %z = arith.constant 0.0 : f32
      %f = linalg.fill ins(%z : f32) outs(%e : tensor<?xf32>) -> tensor<?xf32>
      return %f : tensor<?xf32>
    }"""
    with pytest.raises(CompileError, match="size 0 of result 0 is not an affine function"):
        Program(text, 1)
