"""Linearity and Jacobian blocks of equations, against numerical derivatives of the same bodies."""

from dataclasses import dataclass

import interpreter
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_mlir import ir

from parc import dialect
from parc.codegen.irtools import walk
from parc.poly.example import all_points
from parc.poly.linearity import Jacobian, is_affine, jacobians, unknown_reads

TILE = "tensor<3x4xf64>"
MAPS = """
  #id = affine_map<(i, j) -> (i, j)>
  #swap = affine_map<(i, j) -> (j, i)>
  #row = affine_map<(i, j) -> (i)>
  #column = affine_map<(i, j) -> (j)>
  #none = affine_map<(i, j) -> ()>
"""
CONSTANTS = """
  %zero = arith.constant dense<0.0> : tensor<3x4xf64>
  %zero2 = arith.constant dense<0.0> : tensor<3x2xf64>
  %zerot = arith.constant dense<0.0> : tensor<4x3xf64>
  %zeros = arith.constant dense<0.0> : tensor<3xf64>
  %ones = arith.constant dense<1.0> : tensor<3xf64>
  %half = arith.constant dense<0.5> : tensor<3x4xf64>
  %wide0 = arith.constant dense<0.0> : tensor<3x8xf64>
"""
KNOWN = {"u": "tensor<4x4xf64>", "a": "tensor<4x2xf64>", "b": "tensor<2x4xf64>", "m": "tensor<3x3xf64>", "s": "f64"}
"""Weights, the same at every point."""


def generic(result: str, inputs: str, maps: str, code: str, kinds: str = "parallel parallel", out: str = "zero") -> str:
    """A `linalg.generic` on values such as `"h:3x4 g:3"`; the code has their elements as `%h_` and gives `%y`."""
    names = [word.split(":") for word in inputs.split()]
    arguments = ", ".join(f"%{name}_: f64" for name, _ in names)
    values = ", ".join(f"%{name}" for name, _ in names)
    types = ", ".join(f"tensor<{shape + 'x' if shape else ''}f64>" for _, shape in names)
    shape = {"zero": "3x4", "zerot": "4x3", "zeros": "3", "ones": "3"}[out]
    indexing = ", ".join(f"#{m}" for m in maps.split())
    iterators = ", ".join(f'"{kind}"' for kind in kinds.split())
    return f"""
      %{result} = linalg.generic {{indexing_maps = [{indexing}], iterator_types = [{iterators}]}}
        ins({values} : {types}) outs(%{out} : tensor<{shape}xf64>) {{
      ^bb0({arguments}, %o_: f64):
        {code}
        linalg.yield %y : f64
      }} -> tensor<{shape}xf64>"""


def matmul(result: str, left: str, right: str, shapes: str = "3x4 4x4 3x4", out: str = "zero") -> str:
    a, b, c = (f"tensor<{shape}xf64>" for shape in shapes.split())
    return f"%{result} = linalg.matmul ins(%{left}, %{right} : {a}, {b}) outs(%{out} : {c}) -> {c}\n"


def pointwise(result: str, op: str, *arguments: str) -> str:
    return f"%{result} = {op} {', '.join(f'%{a}' for a in arguments)} : {TILE}\n"


@dataclass(frozen=True)
class Body:
    """A body with the unknown tiles %h and %g, the known tile %k and the weights; it gives the tile %y."""

    code: str

    def system(self) -> ir.Module:
        weights = ", ".join(f"%{name}: {type_}" for name, type_ in KNOWN.items())
        unknowns = "\n".join(
            f'%{n.upper()} = "parc.unknown"() {{name = "{n}", shape = affine_map<()[T] -> (T + 1, 3, 4)>}}'
            f" : () -> tensor<?x3x4xf64>"
            for n in "hgy"
        )
        reads = "\n".join(
            f'%{n} = "parc.read"(%{n.upper()}) {{at = affine_map<(t)[T] -> (t)>}} : (tensor<?x3x4xf64>) -> {TILE}'
            for n in "hgk"
        )
        return parse(f"""{MAPS}
          func.func @main(%T: index, %K: tensor<?x3x4xf64>, {weights}) {{
            {CONSTANTS}
            %system = "parc.system"(%T) ({{
              {unknowns}
              "parc.equation"() ({{
              ^bb0(%t: index):
                {reads}
                {self.code}
                "parc.write"(%y, %Y) {{at = affine_map<(t)[T] -> (t + 1)>}} : ({TILE}, tensor<?x3x4xf64>) -> ()
              }}) {{name = "cell", domain = affine_set<(t)[T] : (t >= 0, T - 1 - t >= 0)>}} : () -> ()
            }}) {{symbols = ["T"]}} : (index) -> !parc.solution
            return
          }}""")

    def function(self) -> ir.Module:
        tiles = ", ".join(f"%{name}: {TILE}" for name in "hgk")
        weights = ", ".join(f"%{name}: {type_}" for name, type_ in KNOWN.items())
        return parse(f"""{MAPS}
          func.func @main({tiles}, {weights}) -> {TILE} {{
            {CONSTANTS}
            {self.code}
            return %y : {TILE}
          }}""")


def parse(text: str) -> ir.Module:
    context = ir.Context()
    dialect.load(context)
    return ir.Module.parse(text, context)


class Numbers:
    """A body as a function of %h and %g, at random known values."""

    def __init__(self, body: Body, seed: int = 0) -> None:
        self.module = body.function()
        self.random = np.random.default_rng(seed)
        self.known = [self.tile()]
        for type_ in KNOWN.values():
            shape = [int(n) for n in type_.removeprefix("tensor<").split("x")[:-1]]
            self.known.append(self.random.normal(size=shape))

    def tile(self) -> np.ndarray:
        return self.random.normal(size=(3, 4))

    def __call__(self, h: np.ndarray, g: np.ndarray) -> np.ndarray:
        return interpreter.evaluate(self.module, [], [h, g, *self.known])[0]

    def bend(self) -> float:
        """How far the function is from an affine one: zero for one that is affine in both tiles together."""
        x, y, zero = [self.tile() for _ in "hg"], [self.tile() for _ in "hg"], [np.zeros((3, 4)) for _ in "hg"]
        both = [a + b for a, b in zip(x, y, strict=True)]
        return float(np.abs(self(*both) - self(*x) - self(*y) + self(*zero)).max())

    def jacobian(self, by: str) -> np.ndarray:
        """The derivative by one of the tiles, 12 x 12, by central differences."""
        at, step = [self.tile() for _ in "hg"], 1e-6
        columns = []
        for place in np.ndindex(3, 4):
            ends = []
            for sign in (1, -1):
                moved = [tile.copy() for tile in at]
                moved["hg".index(by)][place] += sign * step
                ends.append(self(*moved))
            columns.append(((ends[0] - ends[1]) / (2 * step)).reshape(-1))
        return np.stack(columns, 1)


class Found:
    """What is found out about a body."""

    def __init__(self, body: Body) -> None:
        self.module = body.system()  # its operations live as long as it does
        (equation,) = walk(self.module.operation, "parc.equation")
        blocks = jacobians(equation)
        self.blocks = {ir.StringAttr(b.read.operands[0].owner.attributes["name"]).value: b for b in blocks}
        self.is_affine = is_affine(blocks, unknown_reads(equation))


def pattern(block: Jacobian) -> np.ndarray:
    """Which entries of a 12 x 12 block may differ from zero."""
    allowed = np.zeros((12, 12), bool)
    for term in block.terms:
        for i0, i1, j0, j1 in all_points(term.pattern.wrap(), {}) if term.scale != 0.0 else ():
            allowed[4 * i0 + i1, 4 * j0 + j1] = True
    return allowed


def check(body: Body, seed: int = 0) -> None:
    """What is said of a body holds for its numbers: it is affine where it is said to be, no entry is missed, ..."""
    numbers = Numbers(body, seed)
    found = Found(body)
    if found.is_affine:
        assert numbers.bend() < 1e-8
    for name in "hg":
        matrix = numbers.jacobian(name)
        if name not in found.blocks:
            assert np.abs(matrix).max() < 1e-6
            continue
        block = found.blocks[name]
        assert np.abs(matrix[~pattern(block)]).max(initial=0) < 1e-6
        kind = block.kind
        rows = matrix.reshape(3, 4, 3, 4)
        if not block.mixes_rows:
            assert all(np.abs(rows[a, :, b]).max() < 1e-6 for a in range(3) for b in range(3) if a != b)
        if kind.name == "identity":
            assert np.allclose(matrix, np.eye(12), atol=1e-6)
        if kind.name == "scaled identity":
            assert np.allclose(matrix, matrix[0, 0] * np.eye(12), atol=1e-6)
        if kind.is_elementwise:
            assert np.abs(matrix - np.diag(np.diag(matrix))).max() < 1e-6
        if kind.name == "low rank":
            blocks_by_row = [rows[a, :, a] for a in range(3)] if kind.tied else [matrix]
            assert max(np.linalg.matrix_rank(b, tol=1e-5) for b in blocks_by_row) <= kind.number


CASES = {
    # name: (code, affine, kind of the block of %h, kind of the block of %g)
    "sum": (pointwise("y", "arith.addf", "h", "g"), True, "identity 4", "identity 4"),
    "halved": (
        pointwise("p", "arith.mulf", "h", "half") + pointwise("y", "arith.subf", "p", "g"),
        True,
        "scaled identity 4",
        "scaled identity 4",
    ),
    "scalar": (
        generic("y", "h:3x4", "id id", "%y = arith.mulf %h_, %s : f64"),
        True,
        "scaled identity 4",
        None,
    ),
    "gated": (
        pointwise("f", "math.tanh", "k") + pointwise("y", "arith.mulf", "f", "h"),
        True,
        "diagonal 4",
        None,
    ),
    "product of unknowns": (pointwise("y", "arith.mulf", "g", "h"), False, "diagonal 4", "diagonal 4"),
    "quotient": (pointwise("y", "arith.divf", "h", "g"), False, "diagonal 4", "diagonal 4"),
    "divided by known": (pointwise("y", "arith.divf", "h", "k"), True, "diagonal 4", None),
    "tanh": (pointwise("y", "math.tanh", "h"), False, "diagonal 4", None),
    "relu": (pointwise("y", "arith.maximumf", "h", "zero"), False, "diagonal 4", None),
    "linear layer": (matmul("p", "h", "u") + pointwise("y", "arith.addf", "p", "g"), True, "dense 4 x 4", "identity 4"),
    "accumulated": (matmul("y", "h", "u", out="g"), True, "dense 4 x 4", "identity 4"),
    "low rank": (
        matmul("p", "h", "a", "3x4 4x2 3x2", "zero2") + matmul("y", "p", "b", "3x2 2x4 3x4"),
        True,
        "low rank 4 x 4, rank 2",
        None,
    ),
    "residual of low rank": (
        matmul("p", "h", "a", "3x4 4x2 3x2", "zero2") + matmul("y", "p", "b", "3x2 2x4 3x4", "h"),
        True,
        "diagonal plus low rank 4 x 4, rank 2",
        None,
    ),
    "mixes rows": (matmul("y", "m", "h", "3x3 3x4 3x4"), True, "block diagonal 12 x 12, blocks of 3", None),
    "product of two reads": (
        generic("p", "h:3x4", "id swap", "%y = arith.addf %h_, %o_ : f64", out="zerot")
        + matmul("q", "g", "p", "3x4 4x3 3x3", "m")
        + matmul("y", "q", "k", "3x3 3x4 3x4"),
        False,
        "low rank 12 x 12, rank 9",
        "low rank 4 x 4, rank 3",
    ),
    "sum of a row": (
        generic("r", "h:3x4", "id row", "%y = arith.addf %h_, %o_ : f64", "parallel reduction", "zeros")
        + generic("y", "r:3", "row id", "%y = arith.addf %r_, %r_ : f64"),
        True,
        "low rank 4 x 4, rank 1",
        None,
    ),
    "largest of a row": (
        generic("r", "h:3x4", "id row", "%y = arith.maximumf %h_, %o_ : f64", "parallel reduction", "zeros")
        + generic("y", "r:3", "row id", "%y = arith.addf %r_, %r_ : f64"),
        False,
        "low rank 4 x 4, rank 1",
        None,
    ),
    "product of a row": (
        generic("r", "h:3x4", "id row", "%y = arith.mulf %h_, %o_ : f64", "parallel reduction", "ones")
        + generic("y", "r:3", "row id", "%y = arith.addf %r_, %r_ : f64"),
        False,
        "low rank 4 x 4, rank 1",
        None,
    ),
    "chosen by known": (
        f"%c = arith.cmpf ogt, %k, %zero : {TILE}\n%y = arith.select %c, %h, %g : tensor<3x4xi1>, {TILE}\n",
        True,
        "diagonal 4",
        "diagonal 4",
    ),
    "chosen by itself": (
        f"%c = arith.cmpf ogt, %h, %zero : {TILE}\n%y = arith.select %c, %k, %g : tensor<3x4xi1>, {TILE}\n",
        False,
        "zero 4",
        "diagonal 4",
    ),
    "guarded product": (
        f"""%c = arith.cmpf oeq, %h, %zero : {TILE}
        %p = arith.mulf %h, %k : {TILE}
        %y = arith.select %c, %zero, %p : tensor<3x4xi1>, {TILE}
        """,
        True,
        "diagonal 4",
        None,
    ),
    "halves exchanged": (
        f"""%p = tensor.extract_slice %h[0, 0] [3, 2] [1, 1] : {TILE} to tensor<3x2xf64>
        %q = tensor.extract_slice %h[0, 2] [3, 2] [1, 1] : {TILE} to tensor<3x2xf64>
        %y = tensor.concat dim(1) %q, %p : (tensor<3x2xf64>, tensor<3x2xf64>) -> {TILE}
        """,
        True,
        "2 diagonals 4 x 4",
        None,
    ),
    "with itself": (
        f"""%p = tensor.extract_slice %h[0, 0] [3, 2] [1, 1] : {TILE} to tensor<3x2xf64>
        %y = tensor.concat dim(1) %p, %p : (tensor<3x2xf64>, tensor<3x2xf64>) -> {TILE}
        """,
        True,
        "2 diagonals 4 x 4",
        None,
    ),
    "sizes": (
        f"""%one = arith.constant 1 : index
        %n = tensor.dim %g, %one : {TILE}
        %w = tensor.extract_slice %h[0, 0] [3, %n] [1, 1] : {TILE} to tensor<3x?xf64>
        %y = tensor.cast %w : tensor<3x?xf64> to {TILE}
        """,
        True,
        "identity 4",
        None,
    ),
    "a place that an unknown gives": (
        generic(
            "y",
            "g:3x4",
            "id id",
            """%c = arith.fptosi %g_ : f64 to i64
            %z = arith.constant 0 : i64
            %three = arith.constant 3 : i64
            %l = arith.maxsi %c, %z : i64
            %s_ = arith.minsi %l, %three : i64
            %i = arith.index_cast %s_ : i64 to index
            %z_ = arith.constant 0 : index
            %y = tensor.extract %h[%z_, %i] : tensor<3x4xf64>""",
        ),
        False,
        "dense 12 x 12",
        "zero 4",
    ),
    "concatenated": (
        f"""%p = tensor.extract_slice %h[0, 0] [3, 2] [1, 1] : {TILE} to tensor<3x2xf64>
        %r = math.tanh %g : {TILE}
        %q = tensor.extract_slice %r[0, 2] [3, 2] [1, 1] : {TILE} to tensor<3x2xf64>
        %y = tensor.concat dim(1) %p, %q : (tensor<3x2xf64>, tensor<3x2xf64>) -> {TILE}
        """,
        False,
        "diagonal 4",
        "diagonal 4",
    ),
    "the affine half": (
        f"""%r = math.tanh %g : {TILE}
        %w = tensor.concat dim(1) %h, %r : ({TILE}, {TILE}) -> tensor<3x8xf64>
        %y = tensor.extract_slice %w[0, 0] [3, 4] [1, 1] : tensor<3x8xf64> to {TILE}
        """,
        True,
        "identity 4",
        None,
    ),
    "inserted": (
        f"""%w = tensor.insert_slice %h into %wide0[0, 4] [3, 4] [1, 1] : {TILE} into tensor<3x8xf64>
        %v = tensor.insert_slice %g into %w[0, 0] [3, 4] [1, 1] : {TILE} into tensor<3x8xf64>
        %y = tensor.extract_slice %v[0, 4] [3, 4] [1, 1] : tensor<3x8xf64> to {TILE}
        """,
        True,
        "identity 4",
        None,
    ),
    "shifted": (
        f"""%c = arith.constant 0.0 : f64
        %w = tensor.pad %h low[0, 1] high[0, 0] {{
        ^bb0(%i: index, %j: index):
          tensor.yield %c : f64
        }} : {TILE} to tensor<3x5xf64>
        %v = tensor.extract_slice %w[0, 0] [3, 4] [1, 1] : tensor<3x5xf64> to {TILE}
        %y = arith.addf %v, %h : {TILE}
        """,
        True,
        "banded 4 x 4, bandwidth 2",
        None,
    ),
    "blocks of two": (
        f"""%n = tensor.extract_slice %b[0, 0] [2, 2] [1, 1] : tensor<2x4xf64> to tensor<2x2xf64>
        %w = tensor.expand_shape %h [[0], [1, 2]] output_shape [3, 2, 2] : {TILE} into tensor<3x2x2xf64>
        %e = arith.constant dense<0.0> : tensor<3x2x2xf64>
        %v = linalg.generic {{
          indexing_maps = [affine_map<(i, j, k, l) -> (i, j, l)>, affine_map<(i, j, k, l) -> (l, k)>,
                           affine_map<(i, j, k, l) -> (i, j, k)>],
          iterator_types = ["parallel", "parallel", "parallel", "reduction"]}}
          ins(%w, %n : tensor<3x2x2xf64>, tensor<2x2xf64>) outs(%e : tensor<3x2x2xf64>) {{
        ^bb0(%w_: f64, %n_: f64, %o_: f64):
          %p = arith.mulf %w_, %n_ : f64
          %q = arith.addf %o_, %p : f64
          linalg.yield %q : f64
        }} -> tensor<3x2x2xf64>
        %y = tensor.collapse_shape %v [[0], [1, 2]] : tensor<3x2x2xf64> into {TILE}
        """,
        True,
        "block diagonal 4 x 4, blocks of 2",
        None,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_body(name: str) -> None:
    code, affine, by_h, by_g = CASES[name]
    body = Body(code)
    found = Found(body)
    assert found.is_affine == affine
    assert {n: str(b.kind) for n, b in found.blocks.items()} == {n: k for n, k in (("h", by_h), ("g", by_g)) if k}
    assert affine == (Numbers(body).bend() < 1e-8)
    check(body)


def test_a_product_is_affine_in_each_of_its_factors() -> None:
    found = Found(Body(CASES["product of unknowns"][0]))
    blocks = found.blocks
    (h, g) = (blocks[n].read.results[0] for n in "hg")
    assert blocks["h"].is_affine_in([h]) and not blocks["h"].is_affine_in([h, g])
    assert not blocks["h"].is_constant


def test_constant_blocks_are_the_same_at_all_points() -> None:
    assert Found(Body(CASES["linear layer"][0])).blocks["h"].is_constant
    assert not Found(Body(CASES["gated"][0])).blocks["h"].is_constant


STEPS = {
    "add": lambda r, a, b: pointwise(r, "arith.addf", a, b),
    "subtract": lambda r, a, b: pointwise(r, "arith.subf", a, b),
    "multiply": lambda r, a, b: pointwise(r, "arith.mulf", a, b),
    "tanh": lambda r, a, b: pointwise(r, "math.tanh", a),
    "matmul": lambda r, a, b: matmul(r, a, "u"),
    "low rank": lambda r, a, b: (
        matmul(f"{r}p", a, "a", "3x4 4x2 3x2", "zero2") + matmul(r, f"{r}p", "b", "3x2 2x4 3x4", b)
    ),
    "rows": lambda r, a, b: matmul(r, "m", a, "3x3 3x4 3x4", b),
    "scale": lambda r, a, b: generic(r, f"{a}:3x4", "id id", f"%y = arith.mulf %{a}_, %s : f64"),
    "columns": lambda r, a, b: (
        f"""
      %{r}p = tensor.extract_slice %{a}[0, 1] [3, 2] [1, 1] : {TILE} to tensor<3x2xf64>
      %{r} = tensor.insert_slice %{r}p into %{b}[0, 2] [3, 2] [1, 1] : tensor<3x2xf64> into {TILE}
    """
    ),
    "select": lambda r, a, b: (
        f"""
      %{r}p = arith.cmpf ogt, %k, %zero : {TILE}
      %{r} = arith.select %{r}p, %{a}, %{b} : tensor<3x4xi1>, {TILE}
    """
    ),
}


@st.composite
def bodies(draw: st.DrawFn) -> Body:
    values, code = ["h", "g", "k"], ""
    for number in range(draw(st.integers(1, 6))):
        step = STEPS[draw(st.sampled_from(list(STEPS)))]
        code += step(f"v{number}", *(draw(st.sampled_from(values)) for _ in range(2)))
        values.append(f"v{number}")
    return Body(code + pointwise("y", "arith.addf", values[-1], "zero"))


@given(body=bodies(), seed=st.integers(0, 100))
@settings(max_examples=60)
def test_random_bodies(body: Body, seed: int) -> None:
    check(body, seed)
