"""Device code in the memory of a GPU."""

import re
from collections.abc import Sequence
from typing import Any

from parc.errors import DeviceError
from parc.runtime.cuda.device import CudaDevice
from parc.runtime.image import DeviceImage

_ARCH = re.compile(r"sm_(\d+)(\d)([af]?)")
_LOG_BYTES = 1 << 14


class DeviceModule:
    """The kernels of a program, loaded from its cubin, or from its PTX, which the driver assembles."""

    def __init__(self, device: CudaDevice, image: DeviceImage, kernels: Sequence[str]) -> None:
        """DeviceError where the device cannot run the code, or the driver refuses it."""
        self.device = device
        self.kernels = tuple(kernels)
        driver = device.driver
        with device.current():
            module = self._load(image)
            self.functions = [
                driver.cuModuleGetFunction(module, name.encode(), during=f"looking up the kernel {name}")
                for name in self.kernels
            ]
        device.release_with(self, "cuModuleUnload", module)

    def _load(self, image: DeviceImage) -> Any:
        match = _ARCH.fullmatch(image.arch)
        if match is None:
            raise DeviceError(f"'{image.arch}' is no architecture of a GPU")
        arch, is_special = (int(match[1]), int(match[2])), bool(match[3])
        here = self.device.capability
        # Machine code runs on later devices of its generation, PTX on all later ones, special features on one alone.
        runs = here == arch if is_special else here[0] == arch[0] and here[1] >= arch[1]
        if image.cubin is not None and runs:
            return self.device.driver.cuModuleLoadData(image.cubin, during=f"loading the cubin for {image.arch}")
        if here < arch or (is_special and not runs):
            raise DeviceError(
                f"the program was compiled for {image.arch} and does not run on {self.device}: "
                f"compile it with target='cuda:sm_{here[0]}{here[1]}'"
            )
        return self._assemble(image)

    def _assemble(self, image: DeviceImage) -> Any:
        """Load PTX; the driver's log is part of the error."""
        cuda = self.device.driver.cuda
        log = bytearray(_LOG_BYTES)
        options = [
            cuda.CUjit_option.CU_JIT_ERROR_LOG_BUFFER,
            cuda.CUjit_option.CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES,
        ]
        text = image.ptx.encode() + b"\0"
        result, module = cuda.cuModuleLoadDataEx(text, len(options), options, [log, len(log)])
        if int(result):
            error = self.device.driver.error(result, f"loading the PTX for {image.arch}")
            said = bytes(log).split(b"\0", 1)[0].decode(errors="replace").strip()
            raise DeviceError(f"{error}\n{said}" if said else str(error))
        return module
