"""The GPU architectures that parc compiles for."""

from dataclasses import dataclass

from parc.errors import UsageError

_KB = 1024
_SMALL_ARGUMENTS = 4352
MOST_ARGUMENTS = 32764
"""Bytes of a kernel's arguments, with PTX 8.1 and a driver that reads it (CUDA 12.1)."""


@dataclass(frozen=True)
class Arch:
    """One architecture of NVIDIA's.

    `ptx` is the version of PTX to write, as LLVM names it: the oldest one that has what parc uses on that architecture,
    since a driver assembles only versions that it knows. `sms` is that of the usual device (a driver tells the real
    number); `shared_per_block` is in bytes and counts dynamic shared memory, which a launch has to ask for.
    """

    name: str
    ptx: str
    device: str
    sms: int
    shared_per_block: int
    threads_per_sm: int
    registers_per_sm: int = 65536

    def ptx_for(self, argument_bytes: int) -> str:
        """The version of PTX for kernels that take so many bytes of arguments: since 8.1 they can be more than 4352."""
        return max(self.ptx, "ptx81") if argument_bytes > _SMALL_ARGUMENTS else self.ptx


ARCHITECTURES: dict[str, Arch] = {
    arch.name: arch
    for arch in (
        Arch("sm_80", "ptx80", "A100", 108, 163 * _KB, 2048),
        Arch("sm_86", "ptx80", "A10, RTX 30", 84, 99 * _KB, 1536),
        Arch("sm_89", "ptx80", "L40, RTX 40", 142, 99 * _KB, 1536),
        Arch("sm_90", "ptx80", "H100, H200", 132, 227 * _KB, 2048),
        Arch("sm_90a", "ptx80", "H100, H200", 132, 227 * _KB, 2048),
        Arch("sm_100", "ptx86", "B200", 148, 227 * _KB, 2048),
        Arch("sm_100a", "ptx86", "B200", 148, 227 * _KB, 2048),
        Arch("sm_120", "ptx87", "RTX 50", 170, 99 * _KB, 1536),
    )
}


def newest_for(capability: tuple[int, int]) -> Arch:
    """The newest architecture whose code runs on a device of this compute capability; UsageError when it is too old."""
    plain = {_capability(arch): arch for arch in ARCHITECTURES.values() if not arch.name.endswith("a")}
    fitting = [known for known in plain if known <= capability]
    if not fitting:
        found, oldest = "sm_{}{}".format(*capability), plain[min(plain)].name
        raise UsageError(f"parc has no code for {found}; the oldest that it knows is {oldest}")
    return plain[max(fitting)]


def _capability(arch: Arch) -> tuple[int, int]:
    digits = arch.name.removeprefix("sm_").removesuffix("a")
    return int(digits[:-1]), int(digits[-1])


def find_arch(name: str) -> Arch:
    """The architecture called `sm_90`, say; UsageError, with the list, for one that parc does not know."""
    if name not in ARCHITECTURES:
        raise UsageError(f"parc has no GPU architecture '{name}'; it has {', '.join(ARCHITECTURES)}")
    return ARCHITECTURES[name]
