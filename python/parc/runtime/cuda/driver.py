"""The CUDA driver, as cuda-bindings has it: calls that raise, with words for what is wrong."""

from functools import cache
from types import ModuleType
from typing import Any

from parc.errors import DeviceError

_ADVICE = {
    "NO_DEVICE": "there is no GPU, or CUDA_VISIBLE_DEVICES hides it",
    "OUT_OF_MEMORY": "its memory is used up: free some (torch.cuda.empty_cache()) or use smaller sizes",
    "SYSTEM_DRIVER_MISMATCH": "the driver and its kernel module are of different versions: restart the machine",
    "UNSUPPORTED_PTX_VERSION": "the program's PTX is newer than the driver: update the driver",
    "JIT_COMPILER_NOT_FOUND": "the driver lacks its compiler of PTX: install libnvidia-ptxjitcompiler",
    "COOPERATIVE_LAUNCH_TOO_LARGE": "the GPU cannot hold all blocks at once: compile for fewer (threads=...)",
    "LAUNCH_OUT_OF_RESOURCES": "a block takes more registers or memory than the GPU has for it",
}
_LOST = frozenset(
    "ASSERT CONTAINED ECC_UNCORRECTABLE HARDWARE_STACK_ERROR ILLEGAL_ADDRESS ILLEGAL_INSTRUCTION "  # noqa: SIM905
    "INVALID_ADDRESS_SPACE INVALID_PC LAUNCH_FAILED LAUNCH_TIMEOUT MISALIGNED_ADDRESS".split()
)
"""What ends the context: every later call fails in the same way."""


class Driver:
    """`cuda.bindings.driver`, whose calls return what they give and raise DeviceError when they fail."""

    def __init__(self, bindings: ModuleType) -> None:
        self.cuda = bindings

    def __getattr__(self, name: str) -> Any:
        # cuMemcpy and the like; constants are taken from `cuda` itself.
        function = getattr(self.cuda, name)

        def call(*args: object, during: str = "") -> Any:
            try:
                result, *values = function(*args)
            except RuntimeError as e:  # the library is not there, or does not have the function
                reason = str(e).splitlines()[0].rstrip(".")
                raise DeviceError(
                    f"there is no NVIDIA driver, or an old one: install it, or go to a machine with a GPU ({reason})"
                ) from None
            if int(result):
                raise self.error(result, during or name)
            return values[0] if len(values) == 1 else tuple(values)

        return call

    def error(self, result: Any, during: str) -> DeviceError:
        """What a result code means for the user; `during` says what was done."""
        name: str = result.name
        kind = name.removeprefix("CUDA_ERROR_")
        if kind in _LOST:
            return DeviceError(
                f"the GPU failed during {during}, or what was launched before it: {name}. The CUDA context is lost: "
                "nothing on this GPU works in this process any more. compute-sanitizer shows the instruction"
            )
        _, text = self.cuda.cuGetErrorString(result)
        said = text.decode() if isinstance(text, bytes) else name
        advice = f": {_ADVICE[kind]}" if kind in _ADVICE else ""
        return DeviceError(f"{during} failed with {name} ({said}){advice}")


@cache
def driver() -> Driver:
    """The driver of this machine; DeviceError, which says what to install, when there is none."""
    try:
        from cuda.bindings import driver as bindings
    except ImportError as e:
        raise DeviceError(f"programs for GPUs need cuda-bindings: pip install cuda-bindings ({e})") from None
    found = Driver(bindings)
    found.cuInit(0, during="starting CUDA")
    return found
