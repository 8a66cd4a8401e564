"""The CUDA runtime with a stand-in of the driver's library (`libcuda.cpp`): run by test_cuda_runtime.py, in a process
whose `libcuda.so.1` is the stand-in.  The Python bindings are NVIDIA's; tensors are those of the CPU."""

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch_mlir import ir

from parc import CallError, DeviceError, LoadError, dialect
from parc.call_structure import NamedTensors
from parc.compiled import Compiled
from parc.deploy import load as loading
from parc.deploy.save import save
from parc.expression import Expression
from parc.jit import portable_code
from parc.parameters import Snapshot
from parc.pipelines import parse_pipeline, run_pipeline
from parc.read_module import read_facts
from parc.runtime.cuda.device import CudaDevice, find_device
from parc.runtime.cuda.driver import driver
from parc.runtime.cuda.executable import DeviceExecutable
from parc.runtime.executable import Buffer, Code, Executable
from parc.runtime.facts import Facts
from parc.runtime.image import DeviceImage, entry_points
from parc.runtime.undeployed import UndeployedExecutable
from parc.signature import CPU, Extent, Signature, TensorType

INVALID, MEMORY, NO_DEVICE, PTX_VERSION, NO_BINARY, ILLEGAL_ADDRESS, TOO_LARGE = 1, 2, 100, 222, 209, 700, 720

WAVES = """
    %c0 = arith.constant 0 : index
    scf.for %i = %c0 to %steps step %c1 {
      gpu.launch_func @step::@step blocks in (%blocks, %c1, %c1) threads in (%threads, %c1, %c1)
        args(%arena : memref<?xi8>, %i : index, %x : memref<?xf32>, %y : memref<?xf32>)
    }"""
WHOLE = """
    gpu.launch_func @step::@step blocks in (%blocks, %c1, %c1) threads in (%threads, %c1, %c1)
      dynamic_shared_memory_size %shared
      args(%arena : memref<?xi8>, %steps : index, %x : memref<?xf32>, %y : memref<?xf32>) {parc.cooperative}"""
PROGRAM = """
module attributes {{gpu.container_module, parc.blocks = {blocks} : i64, parc.assertions = [{assertions}],
    parc.prepared = [tensor<8xf32>]}} {{
  func.func @main(%tid: index, %blocks: index, %arena: memref<?xi8>, %steps: index, %x: memref<?xf32>,
      %w: memref<4xf32>, %p: memref<8xf32>, %y: memref<?xf32>) {{
    %c1 = arith.constant 1 : index
    %threads = arith.constant 128 : index
    %shared = arith.constant 100000 : i32
    {launches}
    return
  }}
  func.func @prepare(%tid: index, %blocks: index, %arena: memref<?xi8>, %w: memref<4xf32>, %p: memref<8xf32>) {{
    %c1 = arith.constant 1 : index
    gpu.launch_func @pack::@pack blocks in (%c1, %c1, %c1) threads in (%c1, %c1, %c1)
      args(%arena : memref<?xi8>, %w : memref<4xf32>, %p : memref<8xf32>)
    return
  }}
  func.func @arena_size(%blocks: index, %steps: index) -> index {{
    %c64 = arith.constant 64 : index
    %c4096 = arith.constant 4096 : index
    %size = arith.muli %steps, %c64 : index
    %all = arith.addi %size, %c4096 : index
    return %all : index
  }}
  gpu.module @step {{
    gpu.func @step(%arena: memref<?xi8>, %i: index, %x: memref<?xf32>, %y: memref<?xf32>) kernel {{ gpu.return }}
  }}
  gpu.module @pack {{
    gpu.func @pack(%arena: memref<?xi8>, %w: memref<4xf32>, %p: memref<8xf32>) kernel {{ gpu.return }}
  }}
}}"""

LIBRARY = ctypes.CDLL("libcuda.so.1")
LIBRARY.fake_notes.restype = ctypes.c_char_p
LIBRARY.fake_set.argtypes = [ctypes.c_char_p, ctypes.c_int64]


class HostDevice(CudaDevice):
    """The stand-in's device, with tensors on the CPU and streams that are numbers."""

    capturing = False
    number = 5

    def __init__(self, tensors: torch.device = CPU) -> None:
        super().__init__(driver(), 0, tensors)

    @contextmanager
    def current(self) -> Iterator[None]:
        self.driver.cuCtxPushCurrent(self._context)
        try:
            yield
        finally:
            self.driver.cuCtxPopCurrent()

    def stream(self) -> int:
        return self.number

    def is_capturing(self) -> bool:
        return self.capturing


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """The stand-in without settings and notes."""
    LIBRARY.fake_reset()
    LIBRARY.fake_set(b"fields of step", 16)
    LIBRARY.fake_set(b"fields of pack", 15)
    yield
    driver.cache_clear()


def tell(name: str, value: int) -> None:
    LIBRARY.fake_set(name.encode(), value)


def notes() -> list[str]:
    """The calls since the last time, but for those that make the context current."""
    return [line for line in LIBRARY.fake_notes().decode().splitlines() if line not in ("push", "pop")]


def launches() -> list[list[str]]:
    """The launches since the last time: function, kernel, grid, block, shared memory, stream, |, fields."""
    return [line.split() for line in notes() if line.startswith("cuLaunch")]


def executable(
    text: str = WAVES,
    assertions: str = "",
    arch: str = "sm_90",
    cubin: bytes | None = b"CUBIN",
    blocks: int = 4,
    device: CudaDevice | None = None,
) -> DeviceExecutable:
    code, facts = host_code(text, assertions, blocks)
    return DeviceExecutable(code, facts, DeviceImage(arch, "PTX", cubin), device or HostDevice())


def host_code(text: str, assertions: str = "", blocks: int = 4) -> tuple[Code, Facts]:
    context = ir.Context()
    dialect.load(context)
    module = ir.Module.parse(PROGRAM.format(launches=text, assertions=assertions, blocks=blocks), context)
    run_pipeline(module, parse_pipeline("lower-launches,lower-to-llvm"))
    facts = read_facts(module)
    return portable_code(module, entry_points(facts, "cuda")), facts


def vector(name: str) -> TensorType:
    steps = Extent("T", Expression.symbol(0), 0, 1)
    return TensorType(name, torch.float32, (steps,))


def program(made: Executable) -> Compiled:
    weight = TensorType("w", torch.float32, (Extent("4", Expression.constant(4), offset=4),))
    return Compiled(made, Signature(("T",), (0,), (vector("x"),), (weight,), (vector("y"),)))


def call(compiled: Compiled, x: Tensor, weights: Snapshot) -> Tensor:
    (result,) = compiled(compiled.sizes([x]), [x], weights)
    return result


WEIGHTS = Snapshot([torch.arange(4.0)])


def test_kernels_are_launched_with_the_fields_of_their_arguments() -> None:
    compiled = program(executable(WHOLE, blocks=3))
    assert notes()[-3:] == ["cuModuleLoadData CUBIN", "cuModuleGetFunction step", "cuModuleGetFunction pack"]
    x = torch.randn(7)
    y = call(compiled, x, WEIGHTS)
    pack, step = launches()
    weights = WEIGHTS.tensors[0].data_ptr()
    assert pack[:6] == ["cuLaunchKernel", "pack", "1", "1", "0", "5"]
    assert pack[12:17] == [str(weights), str(weights), "0", "4", "1"]
    assert step[:7] == ["cuLaunchCooperativeKernel", "step", "3", "128", "100000", "5", "|"]
    arena, again, *rest = step[7:12]
    assert arena == again and rest[0] == "0" and int(rest[1]) >= 4096 + 7 * 64 and rest[2] == "1"
    assert step[12:] == [str(v) for v in (7, x.data_ptr(), x.data_ptr(), 0, 7, 1, y.data_ptr(), y.data_ptr(), 0, 7, 1)]


def test_weights_are_prepared_once_and_waited_for() -> None:
    compiled = program(executable(WHOLE))
    weight = torch.arange(4.0)
    first = Snapshot([weight])
    notes()
    call(compiled, torch.randn(7), first)
    called = [line.split()[:2] for line in notes()]
    assert called.index(["cuLaunchKernel", "pack"]) < called.index(["cuCtxSynchronize"])
    call(compiled, torch.randn(7), first)
    assert [name for _, name, *_ in launches()] == ["step"]
    call(compiled, torch.randn(7), Snapshot([weight]))
    assert [name for _, name, *_ in launches()] == ["pack", "step"]


def test_shared_memory_is_asked_for_once() -> None:
    compiled = program(executable(WHOLE))
    for _ in range(2):
        call(compiled, torch.randn(7), WEIGHTS)
    assert [line for line in notes() if line.startswith("cuFuncSet")] == ["cuFuncSetAttribute step 8 100000"]


def test_without_blocks_nothing_is_launched() -> None:
    compiled = program(executable(WAVES))
    call(compiled, torch.randn(0), WEIGHTS)
    assert [name for _, name, *_ in launches()] == ["pack"]


def test_a_call_that_comes_again_is_one_launch() -> None:
    made = executable(WAVES)
    prepared = made.prepare(WEIGHTS.buffers, 1)
    x = torch.randn(9)

    def run(steps: int, y: Tensor) -> list[str]:
        notes()
        made.run((steps,), [Buffer.of(t) for t in (x[:steps], WEIGHTS.tensors[0], *prepared, y)])
        return [line.split()[0] for line in notes()]

    y = torch.empty(9)
    assert run(9, y) == ["cuLaunchKernel"] * 9
    capture = ["cuStreamCreate", "cuStreamBeginCapture", *["cuLaunchKernel"] * 9, "cuStreamEndCapture"]
    assert run(9, y) == ["cuLaunchKernel"] * 9 + capture + ["cuGraphInstantiate", "cuGraphDestroy"]
    assert run(9, y) == run(9, y) == ["cuGraphLaunch"]
    # Other addresses are another call, and a few launches are not worth a graph.
    z = torch.empty(9)
    assert run(9, z) == ["cuLaunchKernel"] * 9
    assert run(2, y[:2]) == run(2, y[:2]) == ["cuLaunchKernel"] * 2


def test_graphs_that_are_not_used_go() -> None:
    made = executable(WAVES)
    prepared = made.prepare(WEIGHTS.buffers, 1)
    x, results = torch.randn(5), [torch.empty(5) for _ in range(20)]
    for _ in range(2):
        for y in results[:3]:
            made.run((5,), [Buffer.of(t) for t in (x, WEIGHTS.tensors[0], *prepared, y)])
    assert sum(line == "cuGraphInstantiate" for line in notes()) == 3
    for y in results[3:]:
        made.run((5,), [Buffer.of(t) for t in (x, WEIGHTS.tensors[0], *prepared, y)])
    assert sum(line == "cuGraphExecDestroy" for line in notes()) == 3


def test_calls_are_captured_in_memory_of_the_graph_that_is_captured() -> None:
    device = HostDevice()
    compiled = program(executable(WHOLE, '"index out of range"', device=device))
    device.capturing = True
    with pytest.raises(CallError, match="call the program once before"):
        call(compiled, torch.randn(7), WEIGHTS)
    device.capturing = False
    call(compiled, torch.randn(7), WEIGHTS)
    outside = launches()[-1][7]
    device.capturing = True
    call(compiled, torch.randn(7), WEIGHTS)
    device.capturing = False
    captured = notes()
    assert [line.split()[0] for line in captured] == ["cuLaunchCooperativeKernel"]  # and nothing waits
    assert captured[0].split()[7] != outside
    call(compiled, torch.randn(7), WEIGHTS)
    assert launches()[-1][7] == outside


def test_each_stream_has_an_arena_of_its_own() -> None:
    device = HostDevice()
    compiled = program(executable(WHOLE, device=device))
    arenas = {}
    for stream in (5, 6, 5, 6):
        device.number = stream
        call(compiled, torch.randn(7), WEIGHTS)
        step = launches()[-1]
        assert step[5] == str(stream) and arenas.setdefault(stream, step[7]) == step[7]
    assert arenas[5] != arenas[6]


def test_a_failed_check_is_an_error_of_that_call_alone() -> None:
    compiled = program(executable(WHOLE, '"index out of range", "another"'))
    call(compiled, torch.randn(7), WEIGHTS)
    assert "cuStreamSynchronize 5" in notes()
    tell("status", 2)
    with pytest.raises(CallError, match="another"):
        call(compiled, torch.randn(7), WEIGHTS)
    tell("status", 0)
    call(compiled, torch.randn(7), WEIGHTS)


def test_programs_without_checks_are_not_waited_for() -> None:
    compiled = program(executable(WHOLE))
    call(compiled, torch.randn(7), WEIGHTS)
    notes()
    call(compiled, torch.randn(7), WEIGHTS)
    assert not [line for line in notes() if "Synchronize" in line]


def test_a_failure_of_the_device_names_the_kernel_and_leaves_out_the_rest() -> None:
    compiled = program(executable(WAVES))
    call(compiled, torch.randn(7), WEIGHTS)
    notes()
    tell("result of cuLaunchKernel", ILLEGAL_ADDRESS)
    with pytest.raises(DeviceError, match="launch of step.*CUDA_ERROR_ILLEGAL_ADDRESS.*context is lost"):
        call(compiled, torch.randn(6), WEIGHTS)
    assert len(launches()) == 1
    tell("result of cuLaunchKernel", 0)
    call(compiled, torch.randn(6), WEIGHTS)
    checked = program(executable(WHOLE, '"index out of range"'))
    call(checked, torch.randn(7), WEIGHTS)
    tell("result of cuStreamSynchronize", ILLEGAL_ADDRESS)
    with pytest.raises(DeviceError, match="run of step, pack.*context is lost"):
        call(checked, torch.randn(7), WEIGHTS)


def test_a_failure_while_a_graph_is_made() -> None:
    made = executable(WAVES)
    prepared = made.prepare(WEIGHTS.buffers, 1)
    buffers = [Buffer.of(t) for t in (torch.randn(5), WEIGHTS.tensors[0], *prepared, torch.empty(5))]
    made.run((5,), buffers)
    tell("result of cuGraphInstantiate", MEMORY)
    with pytest.raises(DeviceError, match="making a graph failed with CUDA_ERROR_OUT_OF_MEMORY.*free some"):
        made.run((5,), buffers)
    assert "cuGraphDestroy" in notes()


def test_launches_that_the_device_cannot_hold() -> None:
    tell("shared", 49152)
    with pytest.raises(DeviceError, match="step needs 100.0 kB of shared memory.*Stand-in, sm_90.* has 49.2 kB"):
        call(program(executable(WHOLE)), torch.randn(7), WEIGHTS)
    tell("shared", 232448)
    with pytest.raises(
        DeviceError, match="step has 9 blocks.*has 4 multiprocessors for 1 each: compile it with threads=4"
    ):
        call(program(executable(WHOLE, blocks=9)), torch.randn(7), WEIGHTS)
    tell("occupancy", 2)
    call(program(executable(WHOLE, blocks=8)), torch.randn(7), WEIGHTS)
    tell("cooperative", 0)
    with pytest.raises(DeviceError, match="no cooperative launches"):
        call(program(executable(WHOLE)), torch.randn(7), WEIGHTS)
    tell("cooperative", 1)
    tell("threads", 96)
    with pytest.raises(DeviceError, match="blocks of 128 threads.*at most 96"):
        call(program(executable(WHOLE)), torch.randn(7), WEIGHTS)
    tell("threads", 1024)
    tell("result of cuLaunchCooperativeKernel", TOO_LARGE)
    with pytest.raises(DeviceError, match="TOO_LARGE.*compile for fewer"):
        call(program(executable(WHOLE)), torch.randn(7), WEIGHTS)


def test_code_is_chosen_for_the_device() -> None:
    def loaded(major: int, minor: int, arch: str, cubin: bytes | None = b"CUBIN") -> str:
        tell("major", major)
        tell("minor", minor)
        notes()
        executable(arch=arch, cubin=cubin)
        return next(line for line in notes() if "Load" in line)

    ptx = "cuModuleLoadDataEx PTX 2 5 6"
    assert loaded(9, 0, "sm_90") == "cuModuleLoadData CUBIN"
    assert loaded(8, 9, "sm_86") == "cuModuleLoadData CUBIN"  # of its generation
    assert loaded(9, 0, "sm_86") == ptx
    assert loaded(12, 0, "sm_90") == ptx
    assert loaded(9, 0, "sm_90", None) == ptx
    assert loaded(9, 0, "sm_90a") == "cuModuleLoadData CUBIN"
    for major, minor, arch in ((8, 0, "sm_90"), (8, 6, "sm_89"), (10, 0, "sm_90a")):
        with pytest.raises(
            DeviceError, match=f"compiled for {arch} .*sm_{major}{minor}.*target='cuda:sm_{major}{minor}'"
        ):
            loaded(major, minor, arch)


def test_code_that_the_driver_refuses() -> None:
    tell("result of cuModuleLoadDataEx", PTX_VERSION)
    with pytest.raises(DeviceError, match="newer than the driver: update(.|\n)*line 3: no such instruction"):
        executable(cubin=None)
    tell("result of cuModuleLoadData", NO_BINARY)
    with pytest.raises(DeviceError, match="loading the cubin for sm_90 failed with CUDA_ERROR_NO_BINARY_FOR_GPU"):
        executable()
    tell("result of cuModuleLoadData", 0)
    tell("result of cuModuleGetFunction", INVALID)
    with pytest.raises(DeviceError, match="looking up the kernel step"):
        executable()


def test_tensors_elsewhere_are_refused() -> None:
    device = HostDevice()
    compiled = program(executable(device=device))
    with pytest.raises(CallError, match="input 'x' is a .* tensor on meta"):
        call(compiled, torch.empty(3, device="meta"), WEIGHTS)
    signature = compiled.signature
    with pytest.raises(CallError, match="'x' is a torch.strided tensor on cpu; expected a dense tensor on cuda:0"):
        signature.solve([torch.empty(3)], torch.device("cuda", 0))


def test_memory_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = program(executable())
    prepared = call(compiled, torch.randn(3), WEIGHTS)
    del prepared
    empty = torch.empty

    def refuse(*sizes: object, **options: object) -> Tensor:
        if options.get("dtype") is torch.uint8:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return empty(*sizes, **options)  # type: ignore[call-overload, no-any-return]

    monkeypatch.setattr(torch, "empty", refuse)
    with pytest.raises(DeviceError, match="no 64.* MB of memory left for a call at these sizes"):
        call(compiled, torch.randn(1_000_000), WEIGHTS)


def test_there_is_no_device() -> None:
    tell("count", 0)
    with pytest.raises(DeviceError, match="no GPU, or CUDA_VISIBLE_DEVICES hides it"):
        find_device()
    tell("count", 1)
    if not torch.cuda.is_available():
        with pytest.raises(DeviceError, match="this PyTorch .* was built for CUDA"):
            find_device()
    driver.cache_clear()
    tell("result of cuInit", NO_DEVICE)
    with pytest.raises(DeviceError, match="starting CUDA failed with CUDA_ERROR_NO_DEVICE.*CUDA_VISIBLE_DEVICES"):
        find_device()


def test_a_device_that_torch_does_not_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(DeviceError, match="no cuda:3: this machine has 1 GPU"):
        find_device(torch.device("cuda", 3))


def test_programs_are_saved_where_there_is_no_device_and_run_where_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, facts = host_code(WHOLE, blocks=2)
    absent = program(UndeployedExecutable(code, facts, DeviceImage("sm_90", "PTX", b"CUBIN"), "there is no GPU"))
    with pytest.raises(DeviceError, match="compiled for sm_90 and cannot run here: there is no GPU"):
        call(absent, torch.randn(3), WEIGHTS)
    path = tmp_path / "model.parc"
    image = absent.image()
    assert image.device == DeviceImage("sm_90", "PTX", b"CUBIN") and not image.host.features
    save(path, "model", image, NamedTensors(("x",)), WEIGHTS.tensors, nn.Module())
    monkeypatch.setattr("parc.runtime.cuda.device.find_device", lambda device: HostDevice())
    loaded = loading.load(path)
    notes()
    x = torch.randn(7)
    y = loaded(x)
    pack, step = launches()
    assert pack[1] == "pack" and step[1:3] == ["step", "2"] and step[18] == str(y.data_ptr())
    assert repr(loaded) == "parc.LoadedModule(model(x: float32[T]) -> float32[T], cuda)"
    with pytest.raises(LoadError, match="compiled for the target cuda: it does not run on cpu"):
        loading.load(path, device="cpu")


def test_threads_take_turns() -> None:
    compiled = program(executable(WHOLE))
    call(compiled, torch.randn(7), WEIGHTS)
    errors: list[Exception] = []

    def work() -> None:
        try:
            for steps in range(1, 20):
                call(compiled, torch.randn(steps), WEIGHTS)
        except Exception as e:  # noqa: BLE001
            errors.append(e)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors and len(launches()) == 2 + 4 * 19
