"""Runs hand-written gpu.modules on the emulator, with numpy arrays as memrefs."""

import ctypes
import math

import numpy as np
from torch_mlir import ir
from torch_mlir.execution_engine import ExecutionEngine

from parc import dialect
from parc.pipelines import parse_pipeline, run_pipeline
from parc.runtime import library_path
from parc.runtime.emulator import Emulator


class Kernel:
    """The kernel `@kernel` of the body of a gpu.module, compiled for the emulator."""

    def __init__(self, body: str, *, seed: int = 0, check_races: bool = True) -> None:
        context = ir.Context()
        dialect.load(context)
        with context, ir.Location.unknown():
            module = ir.Module.parse(f"gpu.module @kernels {{\n{body}\n}}")
            run_pipeline(module, parse_pipeline("emulate-gpu,lower-to-llvm"))
            sites = [a.value for a in module.operation.attributes["parc.sites"]]
            self.engine = ExecutionEngine(module, opt_level=2, shared_libs=[str(library_path())])
        kernels = [("kernel", self.engine.raw_lookup("kernel"))]
        self.emulator = Emulator(kernels, sites, seed=seed, check_races=check_races)

    def __call__(
        self, *arguments: np.ndarray | int, grid: int = 1, block: int = 32, shared: int = 0, cooperative: bool = False
    ) -> None:
        """Launch it; arrays are passed in place."""
        fields = [field for a in arguments for field in _fields(a)]
        slots = (ctypes.c_int64 * len(fields))(*fields)
        start = ctypes.addressof(slots)
        argv = (ctypes.c_void_p * len(fields))(*(start + 8 * i for i in range(len(fields))))
        self.emulator.launch(0, grid, block, argv, shared_bytes=shared, cooperative=cooperative)


def _fields(argument: np.ndarray | int) -> list[int]:
    if isinstance(argument, int):
        return [argument]
    assert argument.flags.c_contiguous
    pointer = argument.ctypes.data
    strides = [math.prod(argument.shape[d + 1 :]) for d in range(argument.ndim)]
    return [pointer, pointer, 0, *argument.shape, *strides]
