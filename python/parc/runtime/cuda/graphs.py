"""Calls that are launched again as one CUDA graph.

A program that launches a kernel for each wave would spend most of its time launching.  A call with sizes and addresses
of an earlier one is captured, and is one launch whenever they come again: torch's allocator gives the results of a loop
the same few addresses over and over.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

from parc.runtime.cuda.device import CudaDevice

_LEAST_LAUNCHES = 4
"""A call of fewer is not worth a graph."""
_CAPACITY = 16
"""How many calls are remembered."""
_SHORT_CAPACITY = 4096


class Graphs:
    """The graphs of one program, the least recently used of which go first."""

    def __init__(self, device: CudaDevice) -> None:
        self._device = device
        self._known: OrderedDict[Hashable, _Graph | None] = OrderedDict()
        self._short: set[Hashable] = set()
        self._capture_stream: Any = None

    def run(
        self, sizes: Hashable, addresses: Callable[[], Hashable], stream: int, launch: Callable[[int], int]
    ) -> None:
        """Make a call that is like all others of these sizes and addresses.

        `launch` launches its kernels to a stream and returns how many they were, which depends on the sizes alone.
        """
        if sizes in self._short:
            launch(stream)
            return
        key = sizes, addresses()
        if graph := self._known.get(key):
            self._known.move_to_end(key)
            graph.launch(stream)
        elif launch(stream) < _LEAST_LAUNCHES:
            if len(self._short) >= _SHORT_CAPACITY:
                self._short.clear()
            self._short.add(sizes)
        elif key in self._known:
            self._known[key] = self._capture(launch)
            self._known.move_to_end(key)
        else:
            self._known[key] = None
            while len(self._known) > _CAPACITY:
                self._known.popitem(last=False)

    def _capture(self, launch: Callable[[int], int]) -> "_Graph":
        """A graph of what is launched."""
        driver = self._device.driver
        cuda = driver.cuda
        if self._capture_stream is None:
            self._capture_stream = driver.cuStreamCreate(cuda.CUstream_flags.CU_STREAM_NON_BLOCKING)
            self._device.release_with(self, "cuStreamDestroy", self._capture_stream)
        stream = self._capture_stream
        driver.cuStreamBeginCapture(stream, cuda.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)
        try:
            launch(int(stream))
        except BaseException:
            _, graph = cuda.cuStreamEndCapture(stream)
            cuda.cuGraphDestroy(graph)
            raise
        graph = driver.cuStreamEndCapture(stream, during="capturing a graph")
        try:
            return _Graph(self._device, driver.cuGraphInstantiate(graph, 0, during="making a graph"))
        finally:
            driver.cuGraphDestroy(graph)


class _Graph:
    def __init__(self, device: CudaDevice, handle: Any) -> None:
        self._device, self._handle = device, handle
        device.release_with(self, "cuGraphExecDestroy", handle)

    def launch(self, stream: int) -> None:
        self._device.driver.cuGraphLaunch(self._handle, stream, during="the launch of a program's graph")
