"""What comes from NVIDIA's packages: the assembler, and libdevice (`__nv_expf`, ...) as LLVM bitcode."""

import importlib.util
import shutil
from pathlib import Path

from parc.errors import CompileError


def find_ptxas() -> Path | None:
    """The assembler of the package nvidia-cuda-nvcc, else the one on $PATH; None where there is neither."""
    on_path = shutil.which("ptxas")
    return _package_file("bin/ptxas") or _package_file("bin/ptxas.exe") or (Path(on_path) if on_path else None)


def read_libdevice(needed: str) -> bytes:
    """The bitcode of libdevice; CompileError, which names the function that is `needed`, where it is not installed."""
    path = _package_file("nvvm/libdevice/libdevice.10.bc")
    if path is None:
        raise CompileError(
            f"a kernel calls {needed} of libdevice, which is not installed: pip install nvidia-nvvm (or parc[gpu])"
        )
    return path.read_bytes()


def _package_file(path: str) -> Path | None:
    """A file of NVIDIA's packages, which share the folders `nvidia/cu<version>`: the one of the latest version."""
    spec = importlib.util.find_spec("nvidia")
    roots = spec.submodule_search_locations if spec and spec.submodule_search_locations else []
    folders = [folder for root in roots for folder in Path(root).glob("cu[0-9]*") if (folder / path).is_file()]
    latest = max(folders, default=None, key=lambda folder: (len(folder.name), folder.name))
    return latest / path if latest else None
