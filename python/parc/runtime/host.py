"""What host code is compiled for: the machine, its CPU, and the CPU's features."""

import platform
import sys
from dataclasses import dataclass
from functools import cache

from parc.errors import LoadError
from parc.runtime.llvm import load_llvm

_UNUSED = frozenset(
    "64bit aes amx-bf16 amx-complex amx-fp16 amx-fp8 amx-int8 amx-movrs amx-tf32 amx-tile cldemote "  # noqa: SIM905
    "clflushopt clwb clzero enqcmd fsgsbase fxsr hreset invpcid kl lwp mmx movdir64b movdiri mwaitx pclmul pconfig pku "
    "prefetchi prfchw ptwrite rdpid rdpru rdrnd rdseed rtm sahf serialize sgx sha sha512 shstk sm3 sm4 tsxldtrk uintr "
    "usermsr vaes vpclmulqdq waitpkg wbnoinvd widekl x87 xsave xsavec xsaveopt xsaves".split()
)
"""Features of x86-64 whose instructions LLVM writes only where a program names them, or that all of them have."""


@dataclass(frozen=True)
class Host:
    """A machine that host code is compiled for; `features` are those of the CPU that its instructions may need."""

    machine: str
    """Such as `x86_64`."""
    system: str
    """Such as `linux`."""
    cpu: str
    features: frozenset[str]

    def check(self, here: "Host") -> None:
        """LoadError where code that was compiled for this machine does not run on the other."""
        if (self.machine, self.system) != (here.machine, here.system):
            raise LoadError(
                f"the program was compiled for {self.system} on {self.machine}; "
                f"this is {here.system} on {here.machine}: compile it here"
            )
        if missing := sorted(self.features - here.features):
            raise LoadError(
                f"the program was compiled for the CPU {self.cpu} and may use {', '.join(missing)}, "
                f"which this CPU ({here.cpu}) does not have: compile it here, or on a machine with a CPU like this one"
            )


@cache
def this_host() -> Host:
    """This machine, with all that its CPU has."""
    features = load_llvm().get_host_cpu_features()
    present = frozenset(name for name, has in features.items() if has) - _UNUSED
    return Host(platform.machine(), sys.platform, load_llvm().get_host_cpu_name(), present)


def any_host() -> Host:
    """Any machine of this kind: code that is compiled for it runs on all of them."""
    return Host(platform.machine(), sys.platform, "generic", frozenset())
