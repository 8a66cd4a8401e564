"""A GPU: what it has, its memory and its streams."""

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from parc.errors import DeviceError
from parc.memory import bytes_text
from parc.runtime.cuda.driver import Driver, driver


class CudaDevice:
    """One GPU, in the context that torch uses, with torch's memory and streams."""

    def __init__(self, driver: Driver, index: int, tensors: torch.device) -> None:
        """`tensors` is where torch has its tensors."""
        self.driver = driver
        self.tensors = tensors
        handle = driver.cuDeviceGet(index)
        self._context = driver.cuDevicePrimaryCtxRetain(handle, during=f"opening {tensors}")
        name = driver.cuDeviceGetName(128, handle)
        self.name = name.decode().rstrip("\0") if isinstance(name, bytes) else str(name)
        attributes = driver.cuda.CUdevice_attribute

        def attribute(which: str) -> int:
            return int(driver.cuDeviceGetAttribute(getattr(attributes, f"CU_DEVICE_ATTRIBUTE_{which}"), handle))

        self.capability = attribute("COMPUTE_CAPABILITY_MAJOR"), attribute("COMPUTE_CAPABILITY_MINOR")
        self.multiprocessors = attribute("MULTIPROCESSOR_COUNT")
        self.shared_bytes = attribute("MAX_SHARED_MEMORY_PER_BLOCK_OPTIN")
        """What one block can have."""
        self.is_cooperative = bool(attribute("COOPERATIVE_LAUNCH"))

    def __str__(self) -> str:
        major, minor = self.capability
        return f"{self.tensors} ({self.name}, sm_{major}{minor})"

    @contextmanager
    def current(self) -> Iterator[None]:
        """Inside, calls of torch and of the driver are for this device."""
        with torch.cuda.device(self.tensors):
            self.driver.cuCtxPushCurrent(self._context)
            try:
                yield
            finally:
                self.driver.cuCtxPopCurrent()

    def stream(self) -> int:
        """The handle of torch's current stream."""
        return torch.cuda.current_stream(self.tensors).cuda_stream

    def is_capturing(self) -> bool:
        """Whether the current stream is being captured to a graph: the device computes nothing then."""
        return torch.cuda.is_current_stream_capturing()

    def release_with(self, owner: object, release: str, handle: Any) -> None:
        """Once `owner` is gone, call the driver's function `release` for a handle; not at exit: the context is, too."""
        weakref.finalize(owner, _release, self, release, handle).atexit = False

    def synchronize(self, during: str) -> None:
        """Wait until all that was launched is done; `during` says what that is, should it fail."""
        self.driver.cuCtxSynchronize(during=during)

    def reserve(self, size: int) -> Tensor:
        """So many bytes of memory, which belong to the current stream; DeviceError when there are not as many."""
        try:
            return torch.empty(size, dtype=torch.uint8, device=self.tensors)
        except torch.OutOfMemoryError as e:
            raise DeviceError(
                f"{self.tensors} has no {bytes_text(size)} of memory left for a call at these sizes: {e}"
            ) from None


def _release(device: CudaDevice, release: str, handle: Any) -> None:
    with device.current():
        getattr(device.driver.cuda, release)(handle)


def find_device(device: torch.device | None = None) -> CudaDevice:
    """The GPU that torch calls `device`, its current one for None or "cuda"; DeviceError when there is none."""
    cuda = driver()
    count = cuda.cuDeviceGetCount()
    if not count:
        raise DeviceError("there is no GPU, or CUDA_VISIBLE_DEVICES hides it")
    if not torch.cuda.is_available():
        raise DeviceError(f"this PyTorch ({torch.__version__}) cannot use the GPU: install one that was built for CUDA")
    index = torch.cuda.current_device() if device is None or device.index is None else device.index
    if index >= count:
        raise DeviceError(f"there is no cuda:{index}: this machine has {count} GPU{'s' if count > 1 else ''}")
    return CudaDevice(cuda, index, torch.device("cuda", index))
