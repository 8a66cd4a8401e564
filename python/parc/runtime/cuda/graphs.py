"""Calls that are launched again as one CUDA graph.

A program that launches a kernel for each wave would spend most of its time launching.  A call with sizes and addresses
of an earlier one is captured, and is one launch whenever they come again: torch's allocator gives the results of a loop
the same few addresses over and over.
"""

import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

from parc.runtime.cuda.device import CudaDevice

_LEAST_LAUNCHES = 4
"""A call of fewer is not worth a graph."""
_CAPACITY = 16
"""How many calls are remembered."""


class Graphs:
    """The graphs of one program, the least recently used of which go first."""

    def __init__(self, device: CudaDevice) -> None:
        self._device = device
        self._known: OrderedDict[Hashable, _Graph | None] = OrderedDict()
        self._capture_stream: Any = None

    def replay(self, key: Hashable, stream: int) -> bool:
        """Launch the graph of such a call, if there is one."""
        graph = self._known.get(key)
        if graph is None:
            return False
        self._known.move_to_end(key)
        graph.launch(stream)
        return True

    def seen(self, key: Hashable, launches: int) -> bool:
        """Remember a call that took so many launches; whether it was made before and is worth a graph."""
        if launches < _LEAST_LAUNCHES:
            return False
        before = key in self._known
        self._known[key] = None
        self._known.move_to_end(key)
        while len(self._known) > _CAPACITY:
            self._known.popitem(last=False)
        return before

    def capture(self, key: Hashable, launch: Callable[[int], None]) -> None:
        """Keep a graph of what `launch` launches to the stream that it is given."""
        driver = self._device.driver
        cuda = driver.cuda
        if self._capture_stream is None:
            self._capture_stream = driver.cuStreamCreate(cuda.CUstream_flags.CU_STREAM_NON_BLOCKING)
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
            self._known[key] = _Graph(self._device, driver.cuGraphInstantiate(graph, 0, during="making a graph"))
        finally:
            driver.cuGraphDestroy(graph)


class _Graph:
    def __init__(self, device: CudaDevice, handle: Any) -> None:
        self._device, self._handle = device, handle
        # At exit the context ends first.
        weakref.finalize(self, _destroy, device, handle).atexit = False

    def launch(self, stream: int) -> None:
        self._device.driver.cuGraphLaunch(self._handle, stream, during="the launch of a program's graph")


def _destroy(device: CudaDevice, handle: Any) -> None:
    with device.current():
        device.driver.cuda.cuGraphExecDestroy(handle)
