"""Contractions and sums over rows outside of systems: every layout, odd sizes, equal bits on any number of threads."""

from collections.abc import Sequence
from functools import cache
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import parc

TYPES = {"f32": torch.float32, "f64": torch.float64}
THREADS = (1, 2, 3)
# What is contracted, as for einsum, and what that is in a model.
WHOLE = {
    "tbk,tbn->kn": "the gradient of a weight",
    "tbk,tbn->nk": "of a transposed one",
    "mk,kn->mn": "a product",
    "km,nk->nm": "both factors and the result transposed",
    "tbn,kn->tbk": "the gradient of an input",
    "bhmk,bhnk->bhmn": "attention scores",
    "bmhk,bnhk->bhmn": "with heads next to the features",
    "akm,kbn->abmn": "rows and columns that are not one dimension",
    "abi,cdi->adcb": "with the rows innermost in the result",
    "ijm,jin->mn": "reductions in another order in each factor",
    "mkb,knb->mbn": "a batch dimension inside",
}
# Without the first element of each dimension of the factors, so that no dimensions make up one.
SLICED = ("tbk,tbn->kn", "mk,nk->mn", "bmhk,bnhk->bhmn")


def tensor_type(dims: str, element: str) -> str:
    return f"tensor<{'?x' * len(dims)}{element}>"


def sliced(name: str, dims: str, element: str) -> str:
    """`%<name>s`: all but the first element of each dimension."""
    type_, lines = tensor_type(dims, element), ["%one = arith.constant 1 : index"]
    for d in range(len(dims)):
        lines.append(f"%c{d} = arith.constant {d} : index")
        lines.append(f"%d{d} = tensor.dim %{name}, %c{d} : {type_}")
        lines.append(f"%n{d} = arith.subi %d{d}, %one : index")
    ones, sizes = ", ".join("1" * len(dims)), ", ".join(f"%n{d}" for d in range(len(dims)))
    lines.append(f"%{name}s = tensor.extract_slice %{name}[{ones}] [{sizes}] [{ones}] : {type_} to {type_}")
    own = {f"%{word}": f"%{name}_{word}" for word in ("one", *(f"{k}{d}" for k in "cdn" for d in range(len(dims))))}
    text = "\n".join(lines)
    for word, unique in own.items():
        text = text.replace(word, unique)
    return text


@cache
def contraction(form: str, element: str, cut: int) -> Sequence[nn.Module]:
    """`(x, y, start) -> start + contraction` for each of THREADS, without the first `cut` of each dimension of x, y."""
    left, right, result = form.replace("->", ",").split(",")
    symbols = sorted(set(left + right))
    names, loops = ", ".join(f'"{s}"' for s in symbols), ", ".join(symbols)

    def argument(name: str, dims: str, extra: int) -> str:
        shape = ", ".join(f"{s} + {extra}" for s in dims)
        return f"%{name}: {tensor_type(dims, element)} {{parc.shape = affine_map<()[{loops}] -> ({shape})>}}"

    maps = ", ".join(f"affine_map<({loops}) -> ({', '.join(dims)})>" for dims in (left, right, result))
    kinds = ", ".join('"parallel"' if s in result else '"reduction"' for s in symbols)
    slices = sliced("x", left, element) + "\n" + sliced("y", right, element) if cut else ""
    types = [tensor_type(dims, element) for dims in (left, right, result)]
    end = "s" if cut else ""
    return programs(f"""
        module attributes {{parc.symbols = [{names}]}} {{
          func.func @main({argument("x", left, cut)}, {argument("y", right, cut)}, {argument("start", result, 0)})
              -> {types[2]} {{
            {slices}
            %z = linalg.generic {{indexing_maps = [{maps}], iterator_types = [{kinds}]}}
                ins(%x{end}, %y{end} : {types[0]}, {types[1]}) outs(%start : {types[2]}) {{
            ^bb0(%a: {element}, %b: {element}, %s: {element}):
              %p = arith.mulf %a, %b : {element}
              %t = arith.addf %s, %p : {element}
              linalg.yield %t : {element}
            }} -> {types[2]}
            return %z : {types[2]}
          }}
        }}""")


def programs(text: str) -> Sequence[nn.Module]:
    """The module given as text, compiled for each of THREADS."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "reduction.mlir"
        path.write_text(text)
        return [parc.compile(path, threads=threads) for threads in THREADS]


def run(compiled: Sequence[nn.Module], *inputs: Tensor) -> Tensor:
    """What all of them compute."""
    results = [program(*inputs) for program in compiled]
    assert all(torch.equal(result, results[0]) for result in results)
    return results[0]


def random(shape: Sequence[int], element: str) -> Tensor:
    return torch.rand(list(shape), dtype=TYPES[element]) - 0.5


def check(form: str, element: str, cut: int, sizes: dict[str, int]) -> None:
    """As close to the exact result as sums of so many products are."""
    left, right, result = form.replace("->", ",").split(",")
    x, y = (random([sizes[s] + cut for s in dims], element) for dims in (left, right))
    start = random([sizes[s] for s in result], element)
    seen = [v[(slice(cut, None),) * v.dim()].double() for v in (x, y)]
    exact = start.double() + torch.einsum(form, *seen)
    terms = prod(sizes[s] for s in set(left + right) - set(result))
    actual = run(contraction(form, element, cut), x, y, start)
    allowed = torch.finfo(TYPES[element]).eps * (4 + terms)
    torch.testing.assert_close(actual.double(), exact, rtol=0, atol=allowed)


def some_sizes(data: st.DataObject, form: str) -> dict[str, int]:
    symbols = sorted(set(form) - set("->,"))
    extents = st.integers(0, 30) if len(symbols) > 3 else st.integers(0, 120)
    return {s: data.draw(extents, label=s) for s in symbols}


@pytest.mark.parametrize("form", WHOLE)
@settings(deadline=None, max_examples=8)
@given(data=st.data())
def test_contraction(form: str, data: st.DataObject) -> None:
    check(form, "f32", 0, some_sizes(data, form))


@pytest.mark.parametrize("form", SLICED)
@settings(deadline=None, max_examples=8)
@given(data=st.data())
def test_slices(form: str, data: st.DataObject) -> None:
    check(form, "f64", 1, some_sizes(data, form))


@pytest.mark.parametrize("element", TYPES)
def test_more_than_one_block(element: str) -> None:
    """Of the reduction, of rows and of columns."""
    check("tbk,tbn->kn", element, 0, {"t": 87, "b": 6, "k": 203, "n": 1101})


def test_small_result_of_many_terms() -> None:
    """Parts of the terms are summed up on their own; their number, too, depends on the extents alone."""
    compiled = programs("""
        func.func @main(%x: tensor<?x?x20xf32>, %y: tensor<?x?x24xf32>, %start: tensor<20x24xf32>)
            -> tensor<20x24xf32> {
          %z = linalg.contract indexing_maps = [affine_map<(m, n, t, b) -> (t, b, m)>,
              affine_map<(m, n, t, b) -> (t, b, n)>, affine_map<(m, n, t, b) -> (m, n)>]
              ins(%x, %y : tensor<?x?x20xf32>, tensor<?x?x24xf32>) outs(%start : tensor<20x24xf32>) -> tensor<20x24xf32>
          return %z : tensor<20x24xf32>
        }""")
    for t, b in ((0, 3), (13, 7), (700, 3), (1999, 5)):
        x, y, start = random([t, b, 20], "f32"), random([t, b, 24], "f32"), random([20, 24], "f32")
        exact = start.double() + torch.einsum("tbm,tbn->mn", x.double(), y.double())
        torch.testing.assert_close(run(compiled, x, y, start).double(), exact, rtol=0, atol=1e-7 * (4 + t * b / 4))


def test_transposed_factor_and_fused_work() -> None:
    """A transpose is read through; what an operand is computed by is not done again for every tile."""
    compiled = programs("""
        func.func @main(%q: tensor<?x40xf32>, %k: tensor<50x40xf32>) -> tensor<?x50xf32> {
          %c0 = arith.constant 0 : index
          %zero = arith.constant 0.0 : f32
          %m = tensor.dim %q, %c0 : tensor<?x40xf32>
          %e0 = tensor.empty() : tensor<40x50xf32>
          %kt = linalg.transpose ins(%k : tensor<50x40xf32>) outs(%e0 : tensor<40x50xf32>) permutation = [1, 0]
          %e1 = tensor.empty(%m) : tensor<?x40xf32>
          %twice = linalg.add ins(%q, %q : tensor<?x40xf32>, tensor<?x40xf32>)
              outs(%e1 : tensor<?x40xf32>) -> tensor<?x40xf32>
          %e2 = tensor.empty(%m) : tensor<?x50xf32>
          %f = linalg.fill ins(%zero : f32) outs(%e2 : tensor<?x50xf32>) -> tensor<?x50xf32>
          %s = linalg.matmul ins(%twice, %kt : tensor<?x40xf32>, tensor<40x50xf32>)
              outs(%f : tensor<?x50xf32>) -> tensor<?x50xf32>
          return %s : tensor<?x50xf32>
        }""")
    for rows in (0, 1, 70):
        q, k = random([rows, 40], "f32"), random([50, 40], "f32")
        torch.testing.assert_close(run(compiled, q, k), 2 * q @ k.T)


@cache
def column_sums(columns: int, element: str, operation: str) -> Sequence[nn.Module]:
    """`(x[t, b, columns], start) -> start + sum over t, b`, or another operation in the place of +."""
    return programs(f"""
        func.func @main(%x: tensor<?x?x{columns}x{element}>, %start: tensor<{columns}x{element}>)
            -> tensor<{columns}x{element}> {{
          %y = linalg.generic {{indexing_maps = [affine_map<(n, t, b) -> (t, b, n)>, affine_map<(n, t, b) -> (n)>],
              iterator_types = ["parallel", "reduction", "reduction"]}}
              ins(%x : tensor<?x?x{columns}x{element}>) outs(%start : tensor<{columns}x{element}>) {{
          ^bb0(%a: {element}, %s: {element}):
            %t = {operation} %s, %a : {element}
            linalg.yield %t : {element}
          }} -> tensor<{columns}x{element}>
          return %y : tensor<{columns}x{element}>
        }}""")


@pytest.mark.parametrize(("columns", "element"), [(64, "f32"), (37, "f32"), (100, "f64"), (5, "f64")])
@settings(deadline=None, max_examples=8)
@given(t=st.integers(0, 200), b=st.integers(0, 20))
def test_column_sums(columns: int, element: str, t: int, b: int) -> None:
    x, start = random([t, b, columns], element), random([columns], element)
    actual = run(column_sums(columns, element, "arith.addf"), x, start)
    allowed = torch.finfo(TYPES[element]).eps * (4 + t * b)
    torch.testing.assert_close(actual.double(), start.double() + x.double().sum((0, 1)), rtol=0, atol=allowed)


def test_column_maxima() -> None:
    x, start = random([70, 9, 48], "f32"), random([48], "f32")
    actual = run(column_sums(48, "f32", "arith.maximumf"), x, start)
    torch.testing.assert_close(actual, torch.maximum(start, x.amax((0, 1))), rtol=0, atol=0)
