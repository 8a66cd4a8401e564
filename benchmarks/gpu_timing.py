"""Times on a GPU, and what the GPU can do at best: its rates, measured beside the programs, and the least time."""

import platform
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from common import Timing
from gpu_case import PRECISIONS, Call, Case, precision

from parc.version import VERSION

_ROUND_SECONDS = 0.05
"""How long a program runs in its turn of a round."""
_MOST_CALLS = 100
_REGISTER_BYTES = 2**18
"""Of a multiprocessor, in all generations that parc compiles for."""
GATES = {"LSTM": 4, "LstmLoop": 4, "PeepholeLoop": 4, "GRU": 3, "GruLoop": 3}
"""How many products with weights `[H, H]` a cell does with its input, and as many with its state."""


@dataclass(frozen=True)
class Times:
    """`device`: seconds from the GPU's own clock, of calls launched one after the other without waiting.

    `whole`: seconds of calls that are waited for, as the caller sees them.
    """

    device: Timing
    whole: Timing


def time_in_turns(programs: Mapping[str, Call], rounds: int, device: torch.device) -> Times:
    """Time the programs in turns, so that a change of the GPU's clock hits all of them."""
    names = list(programs)
    once = {name: _seconds(programs[name], 1, device) for name in names}
    calls = {name: min(_MOST_CALLS, max(1, int(_ROUND_SECONDS / max(once[name], 1e-7)))) for name in names}
    on_device: dict[str, list[float]] = {name: [] for name in names}
    whole: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            on_device[name].append(_seconds(programs[name], calls[name], device))
            whole[name].append(_whole_seconds(programs[name], min(calls[name], 10), device))
    return Times(Timing(on_device), Timing(whole))


@dataclass(frozen=True)
class Rates:
    """What the GPU did in simple programs; `barrier_seconds` of the whole grid, None where that cannot be measured.

    memory: bytes per second, read and written, of a copy that no cache holds; cache: of one that the second level does.
    products: multiplications and additions per second of a large matrix product, by precision.
    on_chip: bytes of all registers and shared memory.
    """

    memory: float
    cache: float
    products: Mapping[str, float]
    barrier_seconds: float | None
    on_chip: int

    @staticmethod
    def measure(device: torch.device, precisions: Iterable[str]) -> "Rates":
        """Measure them on a GPU, the best of a few times."""
        with torch.no_grad():
            products = {name: _product_rate(8192, name, device) for name in precisions}
            memory = 2**31 / _copy_seconds(2**30, device)
            small, large = (_copy_seconds(size, device) for size in (2**22, 2**24))
        properties = torch.cuda.get_device_properties(device)
        return Rates(
            memory=memory,
            # The difference leaves out what a launch takes, half of the longer time at the most.
            cache=2 * (2**24 - 2**22) / max(large - small, large / 2),
            products=products,
            barrier_seconds=_barrier_seconds(properties.multi_processor_count, device),
            on_chip=properties.multi_processor_count * (_REGISTER_BYTES + properties.shared_memory_per_multiprocessor),
        )

    def least_seconds(self, case: Case) -> tuple[float, str]:
        """The least time of a call at these rates, and what takes it.

        Products: all of them at the rate of a large one.  Memory: weights, input and output once (training: weights in
        both passes, gradients, and input and output with theirs).  Weights: read at each step from the cache, where the
        chip cannot hold them.  Steps: each needs what another block made in the step before, which takes a barrier.
        """
        layers, steps, batch, hidden = case.shape
        passes = 2 if case.training else 1
        factors = layers * 2 * hidden * GATES[case.name] * hidden
        # parc's weights are float32, and those on the chip are of the type of the products' factors.
        weights, sequence = 4 * factors, 4 * steps * batch * hidden
        resident = factors * PRECISIONS[case.precision].dtype.itemsize
        flops = 2 * steps * batch * factors * (3 if case.training else 1)
        times = {
            "products": flops / self.products[case.precision],
            "memory": (3 * weights + 4 * sequence if case.training else weights + 2 * sequence) / self.memory,
        }
        if resident > self.on_chip:
            times["weights"] = passes * steps * (resident - self.on_chip) / self.cache
        if self.barrier_seconds is not None:
            times["steps"] = passes * steps * self.barrier_seconds
        what = max(times, key=lambda name: times[name])
        return times[what], what


@dataclass(frozen=True)
class GpuMachine:
    """What a reader needs to know about where the numbers come from."""

    gpu: str
    multiprocessors: int
    clocks: str
    driver: str
    cuda: str
    cudnn: str
    host: str
    python: str
    torch: str
    parc: str
    rates: Rates | None

    def __str__(self) -> str:
        text = f"{self.gpu}; {self.host}; Python {self.python}; torch {self.torch}; parc {self.parc}"
        if self.multiprocessors:
            text += f"; {self.multiprocessors} multiprocessors; {self.clocks}; driver {self.driver}; CUDA {self.cuda}; "
            text += f"cuDNN {self.cudnn}"
        if self.rates is None:
            return text
        products = ", ".join(f"{name} {rate / 1e12:.3g} TFLOP/s" for name, rate in self.rates.products.items())
        barrier = self.rates.barrier_seconds
        return (
            f"{text}\ncopies {self.rates.memory / 1e9:.4g} GB/s, in the cache {self.rates.cache / 1e9:.4g} GB/s; "
            f"products {products}; a barrier of the grid {'unknown' if barrier is None else f'{1e6 * barrier:.2f} us'}"
        )


def describe_machine(device: torch.device, rates: Rates | None) -> GpuMachine:
    """This machine; clocks are those of the moment, so that of a GPU that has just worked."""
    host = f"{platform.system()} {platform.machine()}"
    python, torch_version = platform.python_version(), torch.__version__
    if device.type != "cuda":
        gpu = "no GPU, parc's is emulated: no time here says anything about one"
        return GpuMachine(gpu, 0, "", "", "", "", host, python, torch_version, VERSION, rates)
    properties = torch.cuda.get_device_properties(device)
    driver, *clocks = _ask_driver(
        str(properties.uuid), "driver_version", "clocks.sm", "clocks.max.sm", "clocks.mem", "power.limit"
    )
    kind = f"sm_{properties.major}{properties.minor}, {properties.total_memory / 2**30:.0f} GiB"
    return GpuMachine(
        gpu=f"{properties.name} ({kind})",
        multiprocessors=properties.multi_processor_count,
        clocks="SM {} of at most {}, memory {}, power limit {}".format(*clocks)
        if len(clocks) == 4
        else "clocks unknown",
        driver=driver,
        cuda=torch.version.cuda or "",
        cudnn=str(torch.backends.cudnn.version()),
        host=host,
        python=python,
        torch=torch_version,
        parc=VERSION,
        rates=rates,
    )


def _seconds(call: Callable[[], object], calls: int, device: torch.device) -> float:
    """The mean time of a call on the device, after one untimed."""
    call()
    if device.type != "cuda":
        begin = time.perf_counter()
        for _ in range(calls):
            call()
        return (time.perf_counter() - begin) / calls
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize(device)
    start.record()
    for _ in range(calls):
        call()
    end.record()
    torch.cuda.synchronize(device)
    return start.elapsed_time(end) / 1e3 / calls


def _whole_seconds(call: Callable[[], object], calls: int, device: torch.device) -> float:
    """The mean time of a call that is waited for."""
    begin = time.perf_counter()
    for _ in range(calls):
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
    return (time.perf_counter() - begin) / calls


def _best_seconds(call: Callable[[], object], device: torch.device) -> float:
    return min(_seconds(call, 10, device) for _ in range(3))


def _product_rate(size: int, name: str, device: torch.device) -> float:
    a, b = (torch.randn(size, size, device=device, dtype=PRECISIONS[name].dtype) for _ in range(2))
    with precision(name):
        return 2 * size**3 / _best_seconds(lambda: a @ b, device)


def _copy_seconds(size: int, device: torch.device) -> float:
    source, target = (torch.zeros(size, dtype=torch.uint8, device=device) for _ in range(2))
    return _best_seconds(lambda: target.copy_(source), device)


def _barrier_seconds(blocks: int, device: torch.device) -> float | None:
    """The time of a barrier between so many blocks."""
    try:
        from triton_lstm import wait_at_barriers
    except ImportError:
        return None
    few, many = (_best_seconds(partial(wait_at_barriers, n, blocks, device), device) for n in (1000, 2000))
    return (many - few) / 1000


def _ask_driver(uuid: str, *fields: str) -> list[str]:
    """What nvidia-smi says of a GPU; "unknown" when it is not there."""
    if (tool := shutil.which("nvidia-smi")) is None:
        return ["unknown"]
    command = [
        tool,
        f"--id=GPU-{uuid.removeprefix('GPU-')}",
        f"--query-gpu={','.join(fields)}",
        "--format=csv,noheader",
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    return [part.strip() for part in done.stdout.split(",")] if done.returncode == 0 else ["unknown"]
