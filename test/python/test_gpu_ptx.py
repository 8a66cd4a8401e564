"""Device code of whole programs, without a GPU: what it is made of, and that it assembles for every generation."""

from collections.abc import Sequence

import pytest
import torch
from test_gpu_programs import CASES
from torch import nn
from torch_mlir import ir

from parc.compiler import Compiler, Options
from parc.dialect import load
from parc.gpu import toolkit
from parc.gpu.device_code import check_assembles, compile_device
from parc.importers.sources import import_model
from parc.pipelines import run_pipeline, stage_steps
from parc.target import Target

pytest.importorskip("llvmlite")
pytestmark = pytest.mark.skipif(toolkit.find_ptxas() is None, reason="needs ptxas")

GENERATIONS = ("sm_80", "sm_90", "sm_100")
PRODUCTS = {
    "f32": "fma.rn.f32",
    "tf32": "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32",
    "bf16": "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32",
}


def outlined(
    model: nn.Module,
    example: Sequence[object],
    arch: str,
    *,
    strategy: str = "auto",
    dynamic_shapes: object = None,
    precision: str = "f32",
) -> ir.Module:
    """A model's program at the stage "gpu"; `precision` is that of products."""
    context = ir.Context()
    load(context)
    imported = import_model(model, tuple(example), {}, context, dynamic_shapes=dynamic_shapes)
    compiler = Compiler(imported, Options(strategy, target=Target.parse(f"cuda:{arch}")), "model")
    module = compiler.schedule()
    for stage in ("loops", "gpu"):
        run_pipeline(module, stage_steps(stage, target=arch, precision=precision))
    return module


@pytest.mark.parametrize(("layers", "hidden", "precision"), [(8, 256, "f32"), (4, 512, "tf32"), (2, 1024, "bf16")])
def test_kernels_of_the_benchmarks_stay_in_registers(layers: int, hidden: int, precision: str) -> None:
    """The shapes of benchmarks/rnn_gpu.py, one for each way to multiply."""
    model, x = nn.LSTM(hidden, hidden, layers), torch.randn(16, 1, hidden)
    code = compile_device(outlined(model, [x], "sm_90", precision=precision), "sm_90")
    resources = {kernel.name: kernel.resources for kernel in code.kernels}
    for kernel in resources.values():
        assert kernel is not None
        assert kernel.spill_stores == kernel.spill_loads == kernel.stack == 0
    body = code.ptx[code.ptx.index(".entry main_kernel") :]
    for instruction in ("bar.sync", "ld.acquire.gpu", "st.release.gpu", "atom.", PRODUCTS[precision]):
        assert instruction in body
    assert ".local" not in body
    assert ("mma.sync" in body) == (precision != "f32")


@pytest.mark.parametrize("name", ["layer norm in the cell", "simple recurrent unit"])
def test_programs_assemble_for_every_generation(name: str) -> None:
    program = CASES[name].program
    example = program.arguments(dict.fromkeys(program.symbols(), 4))
    options = {"strategy": CASES[name].strategy, "dynamic_shapes": program.dynamic_shapes()}
    module = outlined(program.module(), example, "sm_80", **options)
    for code in check_assembles(module, GENERATIONS):
        for kernel in code.kernels:
            assert kernel.resources is not None
            assert kernel.resources.spill_stores == kernel.resources.spill_loads == 0
