"""Host code of GPU programs: run on the calling thread, with something that its kernels are launched by."""

from typing import TYPE_CHECKING, Protocol

from parc.runtime.team import native_library

if TYPE_CHECKING:
    from parc.runtime.executable import Entry


class Launcher(Protocol):
    """What host code hands kernels over to: a device, or the emulator."""

    @property
    def launcher(self) -> int:
        """The address of a native `parc_launcher` (`native/launch.h`)."""
        ...

    @property
    def context(self) -> int:
        """Its first argument."""
        ...

    def check(self) -> None:
        """Raise the ParcError of the first launch that failed since the last call of this."""
        ...


def run_host_code(entry: "Entry", launcher: Launcher) -> None:
    """Call an entry point; raises what the launcher says when a launch failed, whose followers are left out."""
    library = native_library()
    library.parc_set_launcher(launcher.launcher, launcher.context)
    try:
        entry.call(entry.argv)
        failed = library.parc_launch_failure()
    finally:
        library.parc_set_launcher(None, None)
    if failed:
        launcher.check()
