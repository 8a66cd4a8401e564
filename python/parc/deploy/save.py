"""Saving: a compiled program and its parameters become one file."""

import os
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from parc.call_structure import Structure
from parc.deploy.container import write_container
from parc.deploy.manifest import (
    CUBIN,
    HOST_CODE,
    PTX,
    Kind,
    Manifest,
    StoredParameter,
    manifest_to_json,
)
from parc.runtime.image import ProgramImage
from parc.version import VERSION


def save(
    path: str | os.PathLike[str],
    name: str,
    image: ProgramImage,
    structure: Structure,
    parameters: Sequence[Tensor],
    owner: nn.Module,
) -> None:
    """Write a program with its parameters, in the order of its arguments; `owner` has them under the names to keep.

    SaveError where the structure of calls cannot be described; OSError where the file cannot be written.
    """
    stored = tuple(
        _describe(t, type_.name, owner) for t, type_ in zip(parameters, image.signature.parameters, strict=True)
    )
    manifest = manifest_to_json(Manifest(name, VERSION, image, structure, stored))
    sections: dict[str, object] = {HOST_CODE: image.host_code}
    if image.device is not None:
        sections[PTX] = image.device.ptx.encode()
        if image.device.cubin is not None:
            sections[CUBIN] = image.device.cubin
    sections |= {f"parameter {i}": _bytes(t) for i, t in enumerate(parameters)}
    write_container(path, manifest, sections)


def _describe(tensor: Tensor, name: str, owner: nn.Module) -> StoredParameter:
    """The names of a tensor in its model; that of the program's argument when it has none there."""
    for kind, named in (("parameter", owner.named_parameters), ("buffer", owner.named_buffers)):
        if names := tuple(n for n, t in named(remove_duplicate=False) if t is tensor):
            lasting = owner.state_dict(keep_vars=True)
            return StoredParameter(names, _kind(kind, any(n in lasting for n in names)))
    return StoredParameter((name,), "constant")


def _kind(kind: str, lasting: bool) -> Kind:
    if not lasting:
        return "constant"
    return "parameter" if kind == "parameter" else "buffer"


def _bytes(tensor: Tensor) -> np.ndarray:
    """The elements of a tensor in order."""
    elements = tensor.detach().resolve_conj().resolve_neg().contiguous().cpu()
    array: np.ndarray = elements.reshape(-1).view(torch.uint8).numpy()
    return array
