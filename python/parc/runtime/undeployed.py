"""Programs for a GPU that is not here: to be saved, and loaded where it is."""

from collections.abc import Sequence

from parc.errors import DeviceError
from parc.runtime.executable import Buffer, Code, Entry, Executable
from parc.runtime.facts import Facts
from parc.runtime.image import DeviceImage
from parc.signature import CPU


class UndeployedExecutable(Executable):
    """A program that cannot be called; DeviceError says `why`."""

    target = "cuda"

    def __init__(self, code: Code, facts: Facts, image: DeviceImage, why: str) -> None:
        super().__init__(code, facts, facts.blocks, CPU)
        self.device_code = image
        self._why = why

    def _call(self, entry: Entry, size: int, symbols: tuple[int, ...], buffers: Sequence[Buffer]) -> None:
        assert self.device_code is not None
        raise DeviceError(
            f"the program was compiled for {self.device_code.arch} and cannot run here: {self._why}. "
            "Save it, and parc.load it on a machine with such a GPU"
        )
