"""What is known of a compiled program besides its code: plain data, which the code is run with."""

import math
from dataclasses import dataclass

import torch

from parc.arena_plan import ArenaPlan
from parc.memory import BlockMemory


@dataclass(frozen=True)
class StaticTensor:
    """The element type and shape of a tensor whose size is known."""

    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """The size in memory."""
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class Facts:
    """What a module says about its program in attributes: docs/architecture.md, "CPU (after loops)"."""

    prepared: tuple[StaticTensor, ...]
    """What `@prepare` computes from the parameters."""
    assertions: tuple[str, ...]
    """The message of each check that the program makes of its inputs."""
    arena: ArenaPlan
    kernels: tuple[str, ...] = ()
    """The names of the kernels that the host code launches, by their numbers."""
    sites: tuple[str, ...] = ()
    """Of an emulated program: what and where the steps are that the emulator hears of."""
    blocks: int = 0
    """Of a program for GPUs: how many thread blocks its grid has, to each of which it gives a part; 0 for the CPU."""
    block: BlockMemory | None = None
    """The shared memory of each of them."""

    @property
    def prepared_bytes(self) -> int:
        """The size of what `@prepare` computes."""
        return sum(t.bytes for t in self.prepared)
