"""Programs for NVIDIA GPUs where there is none: what is said there, and the runtime with a stand-in of the driver."""

import ctypes
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import parc
from parc import DeviceError
from parc.runtime.executable import Buffer, Entry
from parc.runtime.image import ProgramImage
from parc.runtime.launch import run_host_code
from parc.runtime.object_code import ObjectCode

HERE = Path(__file__).parent


class Recurrence(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.zeros_like(x[0])
        for t in range(x.shape[0]):
            h = torch.tanh(self.cell(h) + x[t])
        return h


@pytest.fixture(scope="module")
def compiled() -> parc.Module:
    return parc.compile(Recurrence(), torch.randn(5, 2, 8), target="cuda:sm_90")


def test_the_runtime_with_a_stand_in_of_the_driver(tmp_path: Path) -> None:
    """All of `driver/driver_checks.py`, in a process whose driver is `driver/libcuda.cpp`."""
    pytest.importorskip("cuda.bindings")
    if sys.platform != "linux":
        pytest.skip("the stand-in is a library of Linux")
    compiler = os.environ.get("CXX") or shutil.which("c++") or "c++"
    options = ["-std=c++17", "-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", "-o", str(tmp_path / "libcuda.so.1")]
    subprocess.run([compiler, str(HERE / "driver" / "libcuda.cpp"), *options, "-ldl"], check=True)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(HERE / "driver" / "driver_checks.py")],
        env={**os.environ, "LD_LIBRARY_PATH": str(tmp_path), "PYTHONPATH": str(HERE.parent.parent / "python")},
        cwd=HERE.parent.parent,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_gpu_it_is_said_what_to_do(compiled: parc.Module, tmp_path: Path) -> None:
    compiled.save(tmp_path / "model.parc")
    with pytest.raises(DeviceError, match="cuda-bindings|NVIDIA driver|no GPU|this PyTorch"):
        parc.load(tmp_path / "model.parc")
    with pytest.raises(DeviceError, match="compiled for sm_90 and cannot run here: .*parc.load it on a machine"):
        compiled(torch.randn(5, 2, 8))
    with pytest.raises(DeviceError, match="cuda-bindings|NVIDIA driver|no GPU|this PyTorch"):
        parc.compile(Recurrence(), torch.randn(5, 2, 8), target="cuda")


def test_without_cuda_bindings_it_is_said_what_to_install() -> None:
    code = """
import sys
sys.modules["cuda"] = None
import parc.runtime.cuda.device as device
try:
    device.find_device()
except Exception as e:
    print(type(e).__name__, e)
"""
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent.parent / "python")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("DeviceError programs for GPUs need cuda-bindings: pip install cuda-bindings")


class Recorder:
    """A launcher that notes the kernels and how many fields they are given, and fails when it is told to."""

    context = 0

    def __init__(self) -> None:
        self.launches: list[tuple[int, int]] = []
        self.fails = False
        fields = [ctypes.c_void_p, *[ctypes.c_int64] * 5, ctypes.c_void_p, ctypes.c_int64]
        self._function = ctypes.CFUNCTYPE(ctypes.c_int, *fields)(self._launch)

    @property
    def launcher(self) -> int:
        return ctypes.cast(self._function, ctypes.c_void_p).value or 0

    def _launch(self, _: int, kernel: int, *rest: int) -> int:
        self.launches.append((kernel, rest[-1]))
        return int(self.fails)

    def check(self) -> None:
        raise DeviceError("as the test asked")


def entry(image: ProgramImage, code: ObjectCode, steps: int) -> Entry:
    """The call of @main for so many steps, with addresses that nobody reads."""
    sizes = [t.sizes((steps, 2)) for t in (*image.signature.inputs, *image.signature.parameters)]
    sizes += [t.shape for t in image.facts.prepared]
    sizes += [t.sizes((steps, 2)) for t in image.signature.results]
    bound = Entry(code.address("main"))
    bound.bind(image.facts.blocks, 0, 0, (steps, 2), [Buffer(0, s) for s in sizes])
    return bound


def test_kernels_take_as_many_fields_as_host_code_gives_them(compiled: parc.Module) -> None:
    image = compiled._built.program.run.image()
    assert image.target == "cuda" and image.device is not None and not image.host.features
    code = ObjectCode(image.host_code, image.entry_points, image.host)
    recorder = Recorder()
    bound = entry(image, code, 7)
    run_host_code(bound, recorder)
    assert recorder.launches
    for kernel, count in recorder.launches:
        declared = re.search(rf"\.entry {image.facts.kernels[kernel]}\((.*?)\)", image.device.ptx, re.DOTALL)
        assert declared is not None and declared[1].count(".param") == count


def test_after_a_launch_that_failed_there_are_no_others(compiled: parc.Module) -> None:
    image = compiled._built.program.run.image()
    code = ObjectCode(image.host_code, image.entry_points, image.host)
    recorder = Recorder()
    bound = entry(image, code, 7)
    recorder.fails = True
    with pytest.raises(DeviceError, match="as the test asked"):
        run_host_code(bound, recorder)
    assert len(recorder.launches) == 1
    recorder.fails = False
    run_host_code(bound, recorder)


def test_an_emulated_program_is_saved_like_any_other(tmp_path: Path) -> None:
    emulated = parc.compile(Recurrence(), torch.randn(3, 2, 8), target="cuda-emulated", threads=2)
    emulated.save(tmp_path / "model.parc")
    loaded = parc.load(tmp_path / "model.parc")
    x = torch.randn(6, 3, 8)
    with torch.no_grad():
        assert torch.equal(loaded(x), emulated(x))
    assert repr(loaded).endswith("cuda-emulated)")
