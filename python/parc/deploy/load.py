"""Loading: a file becomes something that can be called, with no more than the runtime."""

import math
import os

import torch
from torch import Tensor

from parc.deploy.container import read_container
from parc.deploy.loaded import LoadedModule
from parc.deploy.manifest import Manifest, manifest_from_json
from parc.errors import LoadError
from parc.runtime.executable import CpuExecutable, Executable
from parc.runtime.host import this_host
from parc.runtime.image import ProgramImage
from parc.runtime.object_code import ObjectCode
from parc.runtime.team import Team
from parc.signature import CPU, TensorType


def load(
    path: str | os.PathLike[str],
    device: torch.device | str | int | None = None,
    *,
    threads: int | None = None,
) -> LoadedModule:
    """Load a program that `save` wrote; the result is called as the model was.

    path: the file. Its code runs in this process: load only files that you trust. Checksums find damage, not malice.
    device: for programs for GPUs, the one to run on; None for torch's current one.
    threads: None for as many as this process may use; programs for GPUs have the blocks that they were compiled for.

    Raises `LoadError` for a file that is no saved program or is damaged in any byte, and for a program that does not
    run on this machine; `DeviceError` where there is no GPU to run it on.
    """
    if threads is not None and threads < 1:
        raise ValueError(f"threads is at least 1, not {threads}")
    json, sections = read_container(path)
    try:
        manifest = manifest_from_json(json, sections)
        parameters = [_tensor(t, sections[f"parameter {i}"]) for i, t in enumerate(manifest.image.signature.parameters)]
    except (ValueError, TypeError, LookupError, ArithmeticError, AttributeError, RecursionError) as e:
        raise LoadError(f"{os.fspath(path)} has a manifest that is not valid: {e!r}") from None
    manifest.image.host.check(this_host())
    executable = _executable(manifest, None if device is None else torch.device(device), threads)
    return LoadedModule(manifest, executable, [t.to(executable.device) for t in parameters])


def _executable(manifest: Manifest, device: torch.device | None, threads: int | None) -> Executable:
    image = manifest.image
    if device is not None and (device.type == "cuda") != (image.target == "cuda"):
        raise LoadError(f"the program was compiled for the target {image.target}: it does not run on {device}")
    if image.device is not None:
        from parc.runtime.cuda.device import find_device
        from parc.runtime.cuda.executable import DeviceExecutable

        gpu = find_device(device)
        return DeviceExecutable(_host_code(image), image.facts, image.device, gpu)
    if image.target == "cuda-emulated":
        from parc.runtime.emulated import EmulatedExecutable

        return EmulatedExecutable(_host_code(image), image.facts)
    return CpuExecutable(_host_code(image), image.facts, Team(threads))


def _host_code(image: ProgramImage) -> ObjectCode:
    return ObjectCode(image.host_code, image.entry_points, image.host)


def _tensor(type_: TensorType, section: memoryview) -> Tensor:
    """A tensor in the file's pages."""
    shape = type_.sizes(())
    count = math.prod(shape)
    if count * type_.dtype.itemsize != section.nbytes:
        raise ValueError(f"parameter '{type_.name}' has {section.nbytes} bytes")
    if not count:
        return torch.empty(shape, dtype=type_.dtype, device=CPU)
    return torch.frombuffer(section, dtype=type_.dtype).reshape(shape)
