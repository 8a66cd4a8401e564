"""Compiled programs on a GPU."""

import threading
from collections.abc import Sequence

import torch
from torch import Tensor

from parc.errors import CallError
from parc.runtime.cuda.device import CudaDevice
from parc.runtime.cuda.graphs import Graphs
from parc.runtime.cuda.launcher import CudaLauncher
from parc.runtime.cuda.module import DeviceModule
from parc.runtime.executable import Buffer, Code, Entry, Executable
from parc.runtime.facts import Facts
from parc.runtime.header import LARGEST_HEADER
from parc.runtime.image import DeviceImage
from parc.runtime.launch import run_host_code


class DeviceArena:
    """Memory on a GPU that programs work in: one block of it for each stream, which never shrinks."""

    def __init__(self, device: CudaDevice) -> None:
        self.lock = threading.Lock()
        self._device = device
        self._memory: dict[int, Tensor] = {}

    def reserve(self, size: int, stream: int) -> Tensor:
        """At least `size` bytes for a call on the current stream.

        While that is captured, they are the graph's own: nothing else is to work in them when it is replayed.
        """
        capturing = self._device.is_capturing()
        memory = None if capturing else self._memory.get(stream)
        if memory is None or memory.numel() < size:
            memory = self._device.reserve(size)
            memory[:LARGEST_HEADER].zero_()
            if not capturing:
                self._memory[stream] = memory
        return memory

    def forget(self) -> None:
        """Give up memory that a program which did not come to its end has worked in."""
        self._memory.clear()


class DeviceExecutable(Executable):
    """A program whose members are the blocks of a grid on a GPU.

    Calls are launched on torch's current stream and not waited for, unless the program checks its inputs: then a call
    returns once the check is known.  Calls can be captured to a CUDA graph, without that check, after one outside.
    """

    target = "cuda"

    def __init__(
        self,
        code: Code,
        facts: Facts,
        image: DeviceImage,
        device: CudaDevice,
        arena: DeviceArena | None = None,
    ) -> None:
        """DeviceError where the device cannot run the code."""
        super().__init__(code, facts, facts.blocks, device.tensors)
        self.device_code = image
        self._gpu = device
        self._arena = arena or DeviceArena(device)
        self._launcher = CudaLauncher(DeviceModule(device, image, facts.kernels))
        self._graphs = Graphs(device)
        self._names = ", ".join(facts.kernels)

    def prepare(self, parameters: Sequence[Buffer], symbol_count: int) -> list[Tensor]:
        if self._gpu.is_capturing():
            raise CallError("weights are prepared by the first call: call the program once before a graph is captured")
        prepared = super().prepare(parameters, symbol_count)
        # Calls on any stream use them; and none on any stream uses those before them any more.
        with self._gpu.current():
            self._gpu.synchronize("the kernels that prepare weights")
        return prepared

    def _call(self, entry: Entry, size: int, symbols: tuple[int, ...], buffers: Sequence[Buffer]) -> None:
        with self._gpu.current(), self._arena.lock:
            stream = self._gpu.stream()
            memory = self._arena.reserve(size, stream)
            entry.bind(self.members, memory.data_ptr(), memory.numel(), symbols, buffers)
            capturing = self._gpu.is_capturing()
            try:
                if capturing:
                    self._launch(entry, stream)
                    return
                self._graphs.run(
                    (entry.address, symbols),
                    lambda: (memory.data_ptr(), tuple(buffers)),
                    stream,
                    lambda target: self._launch(entry, target),
                )
                if self.facts.assertions:
                    self._gpu.driver.cuStreamSynchronize(stream, during=f"the run of {self._names}")
            except BaseException:
                self._arena.forget()
                raise
            if self.facts.assertions:
                self._check(_take_status(memory))

    def _launch(self, entry: Entry, stream: int) -> int:
        """Run host code, which launches to a stream; how many launches it made."""
        before = self._launcher.count
        self._launcher.stream = stream
        run_host_code(entry, self._launcher)
        return self._launcher.count - before


def _take_status(memory: Tensor) -> int:
    """The number of the check that failed, 0 for none, once the call is done; and forget it."""
    word = memory[:8].view(torch.int64)
    status = int(word.item())
    if status:
        word.zero_()
    return status
