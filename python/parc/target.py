"""What programs are compiled for: this machine's CPU, a GPU, or the emulator of one."""

from dataclasses import dataclass
from typing import Literal

from parc.codegen.blocks.target import EMULATED
from parc.gpu.arch import ARCHITECTURES

Kind = Literal["cpu", "cuda", "cuda-emulated"]
_CHOICES = '"cpu", "cuda" (the GPU that torch uses), "cuda:sm_90" (any of that architecture) and "cuda-emulated"'


@dataclass(frozen=True)
class Target:
    """A target as users write it: `cpu`, `cuda`, `cuda:sm_90` or `cuda-emulated`."""

    kind: Kind = "cpu"
    arch: str = ""
    """Of `cuda`; empty for that of the GPU of this machine."""

    @staticmethod
    def parse(text: str) -> "Target":
        """The target that a text names; ValueError, with what there is, for any other text."""
        kind, colon, arch = text.partition(":")
        if kind == "cuda" and arch in (*ARCHITECTURES, "") and bool(colon) == bool(arch):
            return Target("cuda", arch)
        if kind == "cuda" and colon:
            raise ValueError(f"there is no target '{text}': parc has the architectures {', '.join(ARCHITECTURES)}")
        if text == "cpu":
            return Target()
        if text == "cuda-emulated":
            return Target("cuda-emulated", EMULATED)
        raise ValueError(f"there is no target '{text}'; choose from {_CHOICES}")

    def __str__(self) -> str:
        return f"cuda:{self.arch}" if self.kind == "cuda" and self.arch else self.kind
