"""The elementary functions of kernels against exact values."""

import ctypes
import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from torch_mlir import ir
from torch_mlir.execution_engine import ExecutionEngine
from torch_mlir.runtime import get_ranked_memref_descriptor

from parc.codegen import activations
from parc.codegen.irtools import run_pipeline, walk

Array = NDArray[np.generic]

LOWER = "convert-vector-to-scf,convert-scf-to-cf,convert-vector-to-llvm,convert-math-to-llvm,convert-to-llvm"
NEAR_ZERO = np.concatenate([np.linspace(-1, 1, 1 << 16), np.geomspace(1e-30, 1, 1 << 12)])


def logistic(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


EXACT: dict[str, Callable[[Array], Array]] = {
    "math.exp": np.exp,
    "math.tanh": np.tanh,
    activations.SIGMOID: logistic,
    "math.expm1": np.expm1,
    "math.log": np.log,
    "math.log1p": np.log1p,
    "math.erf": np.vectorize(math.erf, otypes=[float]),
}


def vector_function(name: str, dtype: str) -> Callable[[Array], Array]:
    """The polynomial `name` as a function on arrays whose size is a multiple of 8."""
    with ir.Context(), ir.Location.unknown():
        module = ir.Module.parse(
            f"""func.func @apply(%x: memref<?x{dtype}>, %y: memref<?x{dtype}>) attributes {{llvm.emit_c_interface}} {{
              %c0 = arith.constant 0 : index
              %c8 = arith.constant 8 : index
              %n = memref.dim %x, %c0 : memref<?x{dtype}>
              scf.for %i = %c0 to %n step %c8 {{
                %v = vector.load %x[%i] : memref<?x{dtype}>, vector<8x{dtype}>
                vector.store %v, %y[%i] : memref<?x{dtype}>, vector<8x{dtype}>
              }}
              return
            }}"""
        )
        load, store = walk(module.operation, "vector.load", "vector.store")
        emit = activations.emitter(name, load.results[0].type.element_type)
        assert emit is not None
        with ir.InsertionPoint(store):
            store.operation.operands[0] = emit(load.results[0])
        run_pipeline(module, LOWER + ",reconcile-unrealized-casts", "test")
        engine = ExecutionEngine(module, opt_level=1)

    def run(x: Array) -> Array:
        y = np.empty_like(x)
        engine.invoke("apply", *(ctypes.pointer(ctypes.pointer(get_ranked_memref_descriptor(a))) for a in (x, y)))
        return y

    return run


@pytest.mark.parametrize(
    ("name", "dtype", "error"),
    [
        ("math.exp", "f32", 1.5e-7),
        ("math.tanh", "f32", 2.5e-7),
        (activations.SIGMOID, "f32", 1.2e-7),
        ("math.exp", "f64", 4e-16),
        ("math.tanh", "f64", 6e-16),
        (activations.SIGMOID, "f64", 3e-16),
    ],
)
def test_exponentials_are_precise(name: str, dtype: str, error: float) -> None:
    x = np.concatenate([np.linspace(-87, 88, 1 << 16), NEAR_ZERO]).astype("f4" if dtype == "f32" else "f8")
    exact = EXACT[name](x.astype(np.longdouble))
    scale = 1.0 if name == activations.SIGMOID else np.abs(np.where(exact == 0, 1, exact))
    assert np.max(np.abs(vector_function(name, dtype)(x) - exact) / scale) < error


@pytest.mark.parametrize(
    ("name", "low", "high", "units"),
    [
        ("math.expm1", -30, 88.7, 2.2),
        ("math.log", 1e-45, 3e38, 1.0),
        ("math.log1p", -0.999999, 3e38, 1.6),
        ("math.erf", -5, 5, 1.1),
    ],
)
def test_other_functions_are_precise(name: str, low: float, high: float, units: float) -> None:
    """Errors in units in the last place of f32."""
    small = NEAR_ZERO if low < -1 else np.geomspace(1e-45, 1, 1 << 14)
    x = np.concatenate([np.linspace(low, min(high, 1e3), 1 << 16), np.geomspace(1, high, 1 << 14), small]).astype("f4")
    exact = EXACT[name](x.astype("f8"))
    last_place = np.spacing(np.abs(exact).astype("f4"))
    assert np.max(np.abs(vector_function(name, "f32")(x) - exact) / last_place) < units


@pytest.mark.parametrize("dtype", ["f32", "f64"])
@pytest.mark.parametrize("name", ["math.exp", "math.tanh", activations.SIGMOID])
def test_exponentials_have_the_right_limits(name: str, dtype: str) -> None:
    low, high = (-104.5, 89.0) if dtype == "f32" else (-746.0, 710.0)
    x = np.array([-np.inf, np.inf, np.nan, 0.0, -1e30, 1e30, low, high]).astype("f4" if dtype == "f32" else "f8")
    got = vector_function(name, dtype)(x)
    middle, top = {"math.exp": (1, np.inf), "math.tanh": (0, 1), activations.SIGMOID: (0.5, 1)}[name]
    bottom = -1 if name == "math.tanh" else 0
    np.testing.assert_array_equal(got[:7], [bottom, top, np.nan, middle, bottom, top, bottom])
    with np.errstate(over="ignore"):
        np.testing.assert_allclose(got[7], EXACT[name](x[7:])[0], rtol=1e-6)


@pytest.mark.parametrize("name", ["math.expm1", "math.log", "math.log1p", "math.erf"])
def test_other_functions_have_the_right_limits(name: str) -> None:
    x = np.array([-np.inf, np.inf, np.nan, 0.0, -1.0, 1e30, -1e30, 3e38], "f4")
    with np.errstate(all="ignore"):
        np.testing.assert_allclose(vector_function(name, "f32")(x), EXACT[name](x.astype("f8")).astype("f4"), rtol=2e-7)
