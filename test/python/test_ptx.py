"""Device code: what compiling kernels promises, beyond what the PTX of `test/gpu` shows."""

import struct
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from torch_mlir import ir

from parc.errors import CompileError, UsageError
from parc.gpu import ptx, toolkit
from parc.gpu.arch import ARCHITECTURES, find_arch
from parc.gpu.device_code import check_assembles, compile_device, resource_table
from parc.gpu.literals import with_old_literals
from parc.gpu.ptx import llvm_to_ptx
from parc.gpu.ptxas import Resources, assemble, parse_resources

pytest.importorskip("llvmlite")
needs_ptxas = pytest.mark.skipif(toolkit.find_ptxas() is None, reason="needs ptxas")

DOUBLE = """
gpu.module @doubling {
  gpu.func @double(%x: memref<?xf32>) kernel attributes {known_block_size = array<i32: 64, 1, 1>} {
    %i = gpu.thread_id x
    %a = memref.load %x[%i] : memref<?xf32>
    %b = arith.addf %a, %a : f32
    memref.store %b, %x[%i] : memref<?xf32>
    gpu.return
  }
}
"""
TANH = DOUBLE.replace("arith.addf %a, %a", "math.tanh %a")

TWO_MODULES = """
module attributes {gpu.container_module} {
  func.func @main(%n: index, %x: memref<?xf32>) {
    %c1 = arith.constant 1 : index
    %c32 = arith.constant 32 : index
    %c64 = arith.constant 64 : index
    gpu.launch_func @b::@second blocks in (%n, %c1, %c1) threads in (%c32, %c1, %c1) args(%x : memref<?xf32>)
    gpu.launch_func @b::@second blocks in (%n, %c1, %c1) threads in (%c64, %c1, %c1) args(%x : memref<?xf32>)
    gpu.launch_func @a::@first blocks in (%n, %c1, %c1) threads in (%c64, %c1, %c1) args(%x : memref<?xf32>)
    return
  }
  gpu.module @b {
    memref.global "private" constant @table : memref<2xf32> = dense<[1.5, 2.5]>
    func.func private @f(%a: f32) -> f32 {
      %i = gpu.thread_id x
      %0 = memref.get_global @table : memref<2xf32>
      %1 = memref.load %0[%i] : memref<2xf32>
      %2 = arith.addf %a, %1 : f32
      return %2 : f32
    }
    gpu.func @second(%x: memref<?xf32>) kernel {
      %i = gpu.thread_id x
      %a = memref.load %x[%i] : memref<?xf32>
      %b = func.call @f(%a) : (f32) -> f32
      memref.store %b, %x[%i] : memref<?xf32>
      gpu.return
    }
  }
  gpu.module @a {
    memref.global "private" constant @table : memref<2xf32> = dense<[3.5, 4.5]>
    func.func private @f(%a: f32) -> f32 {
      %i = gpu.thread_id x
      %0 = memref.get_global @table : memref<2xf32>
      %1 = memref.load %0[%i] : memref<2xf32>
      %2 = arith.mulf %a, %1 : f32
      return %2 : f32
    }
    gpu.func @first(%x: memref<?xf32>) kernel {
      %i = gpu.thread_id x
      %a = memref.load %x[%i] : memref<?xf32>
      %b = func.call @f(%a) : (f32) -> f32
      memref.store %b, %x[%i] : memref<?xf32>
      gpu.return
    }
  }
}
"""


@pytest.fixture(autouse=True)
def context() -> Iterator[ir.Context]:
    with ir.Context() as context, ir.Location.unknown():
        yield context


@needs_ptxas
def test_kernels_of_all_modules_are_loaded_together_in_their_order() -> None:
    module = ir.Module.parse(TWO_MODULES)
    before = str(module)
    code = compile_device(module, "sm_90")
    assert str(module) == before
    assert [(k.name, k.block) for k in code.kernels] == [("second", 0), ("first", 64)]
    assert "second" in code.ptx and "first" in code.ptx
    # Each has its own function and table, although they have the same names.
    assert code.ptx.count("add.rn.f32") == 1
    assert code.ptx.count("mul.rn.f32") == 1
    assert len([line for line in code.ptx.splitlines() if ".global" in line and "align" in line]) == 2
    assert code.cubin is not None
    assert code.cubin.startswith(b"\x7fELF")


@needs_ptxas
def test_every_architecture_of_the_table_can_be_compiled_for() -> None:
    codes = check_assembles(ir.Module.parse(TANH), ARCHITECTURES)
    for code in codes:
        assert f".target {code.arch.name}\n" in code.ptx
        (kernel,) = code.kernels
        assert kernel.resources is not None
        assert kernel.resources.registers > 0
        assert kernel.resources.spill_stores == kernel.resources.spill_loads == 0
    assert "double       64" in resource_table(codes[0])


@needs_ptxas
def test_a_function_that_stays_one_knows_what_is_global_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ptx, "_INLINED_INSTRUCTIONS", 0)
    text = """
gpu.module @m {
  func.func private @outer(%m: memref<?xf32>, %v: memref<4xf32>, %i: index) -> f32 {
    %0 = func.call @inner(%m, %v, %i) : (memref<?xf32>, memref<4xf32>, index) -> f32
    %1 = func.call @inner(%m, %v, %i) : (memref<?xf32>, memref<4xf32>, index) -> f32
    %2 = arith.mulf %0, %1 : f32
    return %2 : f32
  }
  func.func private @inner(%m: memref<?xf32>, %v: memref<4xf32>, %i: index) -> f32 {
    %c3 = arith.constant 3 : index
    %j = arith.andi %i, %c3 : index
    %0 = memref.load %m[%i] : memref<?xf32>
    %1 = memref.load %v[%j] : memref<4xf32>
    memref.store %0, %v[%j] : memref<4xf32>
    %2 = arith.addf %0, %1 : f32
    return %2 : f32
  }
  gpu.func @k(%x: memref<?x8xf32>, %y: memref<4xf32>) kernel {
    %i = gpu.thread_id x
    %c0 = arith.constant 0 : index
    %v = memref.alloca() : memref<4xf32>
    %flat = memref.collapse_shape %x [[0, 1]] : memref<?x8xf32> into memref<?xf32>
    %a = func.call @outer(%flat, %v, %i) : (memref<?xf32>, memref<4xf32>, index) -> f32
    %b = func.call @outer(%flat, %y, %c0) : (memref<?xf32>, memref<4xf32>, index) -> f32
    %s = arith.addf %a, %b : f32
    memref.store %s, %flat[%i] : memref<?xf32>
    gpu.return
  }
}
"""
    (code,) = check_assembles(ir.Module.parse(text), ["sm_90"])
    assert ".visible .func" not in code.ptx
    inner = code.ptx[code.ptx.rindex("inner(\n") :]
    inner = inner[: inner.index("\n}\n")]
    # What is passed on may be a thread's own array: that stays open.
    assert inner.count("ld.global.b32") == inner.count("ld.b32") == inner.count("st.b32") == 1


def test_an_unknown_architecture_is_refused_with_the_list() -> None:
    with pytest.raises(UsageError, match="no GPU architecture 'sm_12'; it has sm_80, .*sm_90a"):
        find_arch("sm_12")
    with pytest.raises(UsageError, match="'turing'"):
        compile_device(ir.Module.parse(DOUBLE), "turing")


def test_without_ptxas_the_driver_gets_ptx(monkeypatch: pytest.MonkeyPatch) -> None:
    _hide_toolkit(monkeypatch)
    code = compile_device(ir.Module.parse(DOUBLE), "sm_80")
    assert code.cubin is None
    assert code.kernels[0].resources is None
    assert ".visible .entry double(" in code.ptx
    with pytest.raises(CompileError, match="pip install nvidia-cuda-nvcc"):
        check_assembles(ir.Module.parse(DOUBLE), ["sm_80"])


def test_ptxas_on_the_path_does_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _hide_toolkit(monkeypatch)
    program = tmp_path / "ptxas"
    program.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(toolkit.shutil, "which", lambda name: str(tmp_path / name))
    assert toolkit.find_ptxas() == program


def test_libdevice_is_asked_for_only_where_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    _hide_toolkit(monkeypatch)
    compile_device(ir.Module.parse(DOUBLE), "sm_80")
    with pytest.raises(CompileError, match="__nv_tanhf of libdevice, .* pip install nvidia-nvvm"):
        compile_device(ir.Module.parse(TANH), "sm_80")


def test_without_llvmlite_the_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llvmlite.binding", None)
    ptx._llvm.cache_clear()
    with pytest.raises(CompileError, match="pip install llvmlite"):
        compile_device(ir.Module.parse(DOUBLE), "sm_80")


def test_a_module_without_kernels_is_refused() -> None:
    with pytest.raises(CompileError, match="no gpu.module"):
        compile_device(ir.Module.parse("func.func @main() { return }"), "sm_80")


def test_ir_that_llvm_does_not_read_is_an_error_of_the_compiler() -> None:
    with pytest.raises(CompileError, match="LLVM cannot compile the kernels for sm_80: .*parsing"):
        llvm_to_ptx(["this is no IR"], find_arch("sm_80"))


@needs_ptxas
@pytest.mark.parametrize(
    ("text", "message"),
    [
        (".version 8.0\n.target sm_80\n.entry k() { add.f32 nothing; }", "ptxas refuses .*line 3.* in '.entry k"),
        (".version 99.0\n.target sm_80\n", "this ptxas is too old: pip install --upgrade nvidia-cuda-nvcc"),
        ("", "ptxas refuses the kernels for sm_80"),
    ],
)
def test_ptx_that_does_not_assemble_is_shown(text: str, message: str) -> None:
    with pytest.raises(CompileError, match=message):
        assemble(text, find_arch("sm_80"))


def test_spills_of_functions_that_are_called_count_for_the_kernels() -> None:
    log = """
ptxas info    : 0 bytes gmem, 16 bytes cmem[4]
ptxas info    : Compiling entry function 'k' for 'sm_90'
ptxas info    : Function properties for k
    8 bytes stack frame, 4 bytes spill stores, 12 bytes spill loads
ptxas info    : Used 40 registers, used 1 barriers, 8 bytes cumulative stack size, 1024 bytes smem, 380 bytes cmem[0]
ptxas info    : Compiling entry function 'l' for 'sm_90'
ptxas info    : Function properties for l
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 12 registers, 380 bytes cmem[0]
ptxas info    : Function properties for helper
    16 bytes stack frame, 2 bytes spill stores, 6 bytes spill loads
"""
    assert parse_resources(log) == {
        "k": Resources(registers=40, spill_stores=6, spill_loads=18, shared=1024, stack=24),
        "l": Resources(registers=12, spill_stores=2, spill_loads=6, shared=0, stack=16),
    }


NUMBERS = [
    ("float 1.000000e-01", "float 0x3FB99999A0000000"),
    ("float -0.000000e+00", "float 0x8000000000000000"),
    ("float 9.999940e-41", "float 0x37A16C2000000000"),
    ("float f0x4CEB79A3", "float 0x419D6F3460000000"),
    ("float +inf", "float 0x7FF0000000000000"),
    ("float -qnan", "float 0xFFF8000000000000"),
    ("float +nan(0x1)", "float 0x7FF8000020000000"),
    ("float +snan(0x1)", "float 0x7FF0000020000000"),
    ("double 1.000000e-01", "double 0x3FB999999999999A"),
    ("half 9.997550e-02", "half 0xH2E66"),
    ("half -inf", "half 0xHFC00"),
    ("bfloat 1.000980e-01", "bfloat 0xR3DCD"),
    ("bfloat +qnan", "bfloat 0xR7FC0"),
    ("phi bfloat [ 3.007810e-01, %2 ], [ -2.000000e+00, %1 ]", "phi bfloat [ 0xR3E9A, %2 ], [ 0xRC000, %1 ]"),
    ("call half @float(float 5.000000e-01, half f0x3C00)", "call half @float(float 0x3FE0000000000000, half 0xH3C00)"),
    ('"version"="1.500000e+00"', '"version"="1.500000e+00"'),
]


@pytest.mark.parametrize(("new", "old"), NUMBERS)
def test_numbers_are_written_for_the_older_llvm(new: str, old: str) -> None:
    assert with_old_literals(new) == old


@pytest.mark.parametrize("value", [0.1, 1 / 3, 123456792.0, 1e-40, 3.4e38, -2.5, 16777217.0, float("inf")])
def test_constants_arrive_to_the_bit(value: float) -> None:
    (bits,) = struct.unpack("<I", struct.pack("<f", value))
    constant = f"%c = arith.constant 0x{bits:08X} : f32\n    %b = arith.addf %a, %c : f32"
    module = ir.Module.parse(DOUBLE.replace("%b = arith.addf %a, %a : f32", constant))
    assert f"0f{bits:08X}" in compile_device(module, "sm_90", cubin=False).ptx


def _hide_toolkit(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if none of NVIDIA's packages were installed."""
    monkeypatch.setattr(toolkit, "_package_file", lambda path: None)
    monkeypatch.setattr(toolkit.shutil, "which", lambda name: None)
