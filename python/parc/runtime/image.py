"""A compiled program as plain data: all that a run needs, so that it can be kept in a file and run elsewhere."""

from dataclasses import dataclass
from typing import Literal

from parc.runtime.facts import Facts
from parc.runtime.host import Host
from parc.signature import Signature

Target = Literal["cpu", "cuda", "cuda-emulated"]


@dataclass(frozen=True)
class DeviceImage:
    """The device code of a program: PTX for any device from `arch` on, and a cubin for devices of `arch` itself."""

    arch: str
    """Such as `sm_90`."""
    ptx: str
    cubin: bytes | None = None


@dataclass(frozen=True)
class ProgramImage:
    """A compiled program: code of the host and of the device, and what is known of it."""

    target: Target
    host: Host
    """What the host code was compiled for."""
    signature: Signature
    facts: Facts
    host_code: bytes
    """A relocatable object file with the entry points."""
    device: DeviceImage | None = None

    @property
    def entry_points(self) -> tuple[str, ...]:
        """The functions of the host code that a run calls."""
        return entry_points(self.facts, self.target)


def entry_points(facts: Facts, target: Target) -> tuple[str, ...]:
    """The functions of the host code that a run of a program calls; the kernels too, where they are emulated."""
    prepare = ("prepare",) if facts.prepared else ()
    return ("main", *prepare, "arena_size", *(facts.kernels if target == "cuda-emulated" else ()))
