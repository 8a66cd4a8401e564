"""The machines that schedules are chosen for: what decides between schedules, as a few numbers."""

import math
from dataclasses import dataclass, replace
from pathlib import Path

from parc.codegen.blocks.target import EMULATED, BlockTarget, find_target
from parc.runtime.team import usable_cpus


@dataclass(frozen=True)
class Machine:
    """What of a machine decides between schedules; the defaults are measurements of a CPU's core.

    A member of a team is a thread, on a core of its own, or a block of a GPU's threads, on a multiprocessor of its own.
    Bandwidths and arithmetic are those of one member, per second.
    """

    threads: int
    """Members."""
    near_bytes: int = 1 << 20
    """The memory that a member has for what it touches again and again: its L2 cache, or shared memory."""
    flops: float = 250e9
    near_bandwidth: float = 135e9
    far_bandwidth: float = 85e9
    read_bandwidth: float = math.inf
    """The same of what other members have just written; not counted on a CPU, where it is part of a call's start."""
    barrier: float = 100e-9
    wait: float = 100e-9
    """Seconds to wait for some of the members."""
    call: float = 30e-9
    """Seconds to start a kernel."""
    step: float = 6e-9
    """The same of one without products, which LLVM puts where it is called, with waiting for the step before."""
    part_bytes: int = 64
    """Bytes of a row's units that one member takes at least: those of a vector register."""

    @staticmethod
    def detect(threads: int = 0) -> "Machine":
        """This machine; with a thread for each core that we may run on when `threads` is 0."""
        path = Path("/sys/devices/system/cpu/cpu0/cache/index2/size")
        text = path.read_text().strip() if path.exists() else ""
        l2 = int(text[:-1]) << 10 if text.endswith("K") and text[:-1].isdigit() else Machine.near_bytes
        return Machine(threads or usable_cpus(), l2)

    @staticmethod
    def of(target: str, threads: int = 0) -> "Machine":
        """The machine of a target, with so many members: "cpu" is this one, others are `codegen/blocks/target.py`'s.

        UsageError for a target that there is not.
        """
        blocks = find_target(target, threads)
        return Machine.detect(threads) if blocks is None else _of_blocks(blocks)

    @property
    def pointwise(self) -> float:
        """How long elementwise operations take, as a part of what they take on the core that `Work` counts them for."""
        return Machine.flops / self.flops


_CLOCK = {"sm_80": 1.41e9, "sm_86": 1.70e9, "sm_89": 2.49e9, "sm_90": 1.98e9, "sm_100": 1.96e9, "sm_120": 2.41e9}
"""Boost clocks, from data sheets."""
_ARITHMETIC = {"sm_80": 128}
"""Floating-point operations of 32 bits a clock and multiprocessor; 256 where nothing is said."""
_SHARED_BYTES = 128
"""Shared memory: bytes a clock and multiprocessor."""
_L2_BYTES, _L2_BYTES_EACH = 5120, 64
"""The L2 cache: bytes a clock for all multiprocessors together, and for one of them."""
_GRID = Machine(0, barrier=1.5e-6, wait=1.0e-6, call=0.5e-6, step=0.3e-6, part_bytes=32)


def _of_blocks(target: BlockTarget) -> Machine:
    # A schedule for the emulator is the one that a GPU would have.
    arch = "sm_90" if target.name == EMULATED else target.name.removesuffix("a")
    clock = _CLOCK[arch]
    far = min(_L2_BYTES / target.blocks, _L2_BYTES_EACH) * clock
    return replace(
        _GRID,
        threads=target.blocks,
        near_bytes=target.shared_bytes,
        flops=_ARITHMETIC.get(arch, 256) * clock,
        near_bandwidth=_SHARED_BYTES * clock,
        far_bandwidth=far,
        read_bandwidth=far,
    )
