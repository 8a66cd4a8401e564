"""Saving: a compiled program and its parameters become one file."""

import os
from collections.abc import Callable, Iterator, Sequence

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
    known = _names(owner)
    stored = tuple(
        known.get(id(tensor)) or StoredParameter((type_.name,), "constant")
        for tensor, type_ in zip(parameters, image.signature.parameters, strict=True)
    )
    manifest = manifest_to_json(Manifest(name, VERSION, image, structure, stored))
    sections: dict[str, object] = {HOST_CODE: image.host_code}
    if image.device is not None:
        sections[PTX] = image.device.ptx.encode()
        if image.device.cubin is not None:
            sections[CUBIN] = image.device.cubin
    sections |= {f"parameter {i}": _bytes(t) for i, t in enumerate(parameters)}
    write_container(path, manifest, sections)


def _names(owner: nn.Module) -> dict[int, StoredParameter]:
    """The names and the kind of each tensor of a model, by its id."""
    lasting = owner.state_dict(keep_vars=True)
    found: dict[int, StoredParameter] = {}
    kinds: tuple[tuple[Kind, Callable[..., Iterator[tuple[str, Tensor]]]], ...] = (
        ("parameter", owner.named_parameters),
        ("buffer", owner.named_buffers),
    )
    for kind, named in kinds:
        for name, tensor in named(remove_duplicate=False):
            before = found.get(id(tensor), StoredParameter((), "constant"))
            found[id(tensor)] = StoredParameter((*before.names, name), kind if name in lasting else before.kind)
    return found


def _bytes(tensor: Tensor) -> np.ndarray:
    """The elements of a tensor in order."""
    elements = tensor.detach().resolve_conj().resolve_neg().contiguous().cpu()
    array: np.ndarray = elements.reshape(-1).view(torch.uint8).numpy()
    return array
