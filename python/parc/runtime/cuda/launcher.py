"""Launches of kernels on a GPU, as host code asks for them."""

import ctypes

from parc.errors import DeviceError
from parc.memory import bytes_text
from parc.runtime.cuda.module import DeviceModule

_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, *[ctypes.c_int64] * 5, ctypes.c_void_p, ctypes.c_int64)
_DEFAULT_SHARED = 48 << 10
"""What every block can have; a kernel that is to have more is told so first."""


class CudaLauncher:
    """A `parc_launcher` for the kernels of a module; launches go to `stream`."""

    context = 0

    def __init__(self, module: DeviceModule) -> None:
        self.stream = 0
        self.count = 0
        """Of launches so far."""
        self._module = module
        self._allowed = dict.fromkeys(range(len(module.kernels)), _DEFAULT_SHARED)
        self._checked: set[tuple[int, int, int, int, int]] = set()
        self._error: Exception | None = None
        self._callback = _CALLBACK(self._launch)

    @property
    def launcher(self) -> int:
        """The address of the native function."""
        return ctypes.cast(self._callback, ctypes.c_void_p).value or 0

    def check(self) -> None:
        """Raise what went wrong since the last call."""
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _launch(
        self, _: int, kernel: int, grid: int, block: int, shared: int, cooperative: int, argv: int, __: int
    ) -> int:
        # An exception must not cross compiled code.
        try:
            if grid:
                self._start(kernel, grid, block, shared, cooperative, argv)
        except Exception as error:  # noqa: BLE001
            self._error = error
            return 1
        return 0

    def _start(self, kernel: int, grid: int, block: int, shared: int, cooperative: int, argv: int) -> None:
        shape = (kernel, grid, block, shared, cooperative)
        if shape not in self._checked:
            self._check(*shape)
            self._checked.add(shape)
        driver, function = self._module.device.driver, self._module.functions[kernel]
        during = f"the launch of {self._module.kernels[kernel]}"
        self.count += 1
        # The driver copies the arguments before it returns.
        if cooperative:
            driver.cuLaunchCooperativeKernel(
                function, grid, 1, 1, block, 1, 1, shared, self.stream, argv, during=during
            )
        else:
            driver.cuLaunchKernel(function, grid, 1, 1, block, 1, 1, shared, self.stream, argv, 0, during=during)

    def _check(self, kernel: int, grid: int, block: int, shared: int, cooperative: int) -> None:
        """DeviceError where the device cannot hold these blocks; lets the kernel have its shared memory."""
        device, name, function = self._module.device, self._module.kernels[kernel], self._module.functions[kernel]
        attributes = device.driver.cuda.CUfunction_attribute
        static = device.driver.cuFuncGetAttribute(attributes.CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES, function)
        if shared + static > device.shared_bytes:
            raise DeviceError(
                f"the kernel {name} needs {bytes_text(shared + static)} of shared memory for a block; {device} has "
                f"{bytes_text(device.shared_bytes)}: compile it for this GPU, or for more blocks (threads=...)"
            )
        if shared > self._allowed[kernel]:
            device.driver.cuFuncSetAttribute(
                function, attributes.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, shared
            )
            self._allowed[kernel] = shared
        most = device.driver.cuFuncGetAttribute(attributes.CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK, function)
        if block > most:
            raise DeviceError(f"the kernel {name} has blocks of {block} threads; on {device} they have at most {most}")
        if cooperative:
            if not device.is_cooperative:
                raise DeviceError(f"{device} has no cooperative launches, which the kernel {name} needs")
            each = device.driver.cuOccupancyMaxActiveBlocksPerMultiprocessor(function, block, shared)
            if grid > each * device.multiprocessors:
                raise DeviceError(
                    f"the kernel {name} has {grid} blocks, which have to run at once; {device} has "
                    f"{device.multiprocessors} multiprocessors for {each} each: compile it with "
                    f"threads={each * device.multiprocessors}"
                )
