"""The manifest of a saved program: its image without the code, its call's structure and its parameters, as JSON."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal, get_args

import torch

from parc.arena_plan import ArenaBuffer, ArenaPlan
from parc.call_structure import Structure
from parc.deploy.trees import Json, structure_from_json, structure_to_json
from parc.expression import Expression
from parc.memory import BlockMemory
from parc.runtime.facts import Facts, StaticTensor
from parc.runtime.host import Host
from parc.runtime.image import DeviceImage, ProgramImage, Target
from parc.signature import Extent, Iterated, Signature, TensorType, short_name

HOST_CODE, PTX, CUBIN = "host", "ptx", "cubin"
"""Names of sections; that of parameter 3 is `parameter 3`."""

Kind = Literal["parameter", "buffer", "constant"]


@dataclass(frozen=True)
class StoredParameter:
    """A parameter in a file: the names that it has in the model, and what it is there.

    A `constant` is no part of the model's `state_dict`.
    """

    names: tuple[str, ...]
    kind: Kind


@dataclass(frozen=True)
class Manifest:
    """What a file says about its program; its code and the parameters are in sections."""

    name: str
    version: str
    """Of parc."""
    image: ProgramImage
    structure: Structure
    parameters: tuple[StoredParameter, ...]
    """In the order of the program's arguments."""


def manifest_to_json(manifest: Manifest) -> dict[str, Json]:
    """SaveError where the structure of calls cannot be described."""
    image = manifest.image
    return {
        "parc": manifest.version,
        "name": manifest.name,
        "target": image.target,
        "host": {
            "machine": image.host.machine,
            "system": image.host.system,
            "cpu": image.host.cpu,
            "features": sorted(image.host.features),
        },
        "device": None if image.device is None else {"arch": image.device.arch},
        "entry_points": list(image.entry_points),
        "symbols": list(image.signature.symbols),
        "least": list(image.signature.least),
        "inputs": [_tensor_to_json(t) for t in image.signature.inputs],
        "parameters": [
            {**_tensor_to_json(t), "names": list(p.names), "kind": p.kind}
            for t, p in zip(image.signature.parameters, manifest.parameters, strict=True)
        ],
        "results": [_tensor_to_json(t) for t in image.signature.results],
        "starts": [_tensor_to_json(t) for t in image.signature.starts],
        "solutions": [_tensor_to_json(t) for t in image.signature.solutions],
        "iterations": [asdict(i) for i in image.signature.iterations],
        "prepared": [{"dtype": short_name(t.dtype), "shape": list(t.shape)} for t in image.facts.prepared],
        "assertions": list(image.facts.assertions),
        "arena": [
            [{"name": b.name, "bytes": b.bytes.to_json(), "text": b.text, "per_member": b.per_member} for b in place]
            for place in image.facts.arena.buffers
        ],
        "kernels": list(image.facts.kernels),
        "sites": list(image.facts.sites),
        "blocks": image.facts.blocks,
        "block": None if image.facts.block is None else asdict(image.facts.block),
        "structure": structure_to_json(manifest.structure),
    }


def manifest_from_json(value: dict[str, Json], sections: dict[str, memoryview]) -> Manifest:
    """What `manifest_to_json` gave; KeyError, TypeError, ValueError or the like for anything else."""
    target: Target = value["target"]
    if target not in get_args(Target):
        raise ValueError(f"there is no target '{target}'")
    host = value["host"]
    facts = Facts(
        tuple(StaticTensor(_dtype(t["dtype"]), tuple(map(int, t["shape"]))) for t in value["prepared"]),
        tuple(map(str, value["assertions"])),
        ArenaPlan(tuple(tuple(_buffer(b) for b in place) for place in value["arena"])),
        tuple(map(str, value["kernels"])),
        tuple(map(str, value["sites"])),
        int(value["blocks"]),
        None if value["block"] is None else _block_memory(value["block"]),
    )
    device = None
    if target == "cuda":
        cubin = bytes(sections[CUBIN]) if CUBIN in sections else None
        device = DeviceImage(str(value["device"]["arch"]), str(sections[PTX], "utf-8"), cubin)
    signature = Signature(
        tuple(map(str, value["symbols"])),
        tuple(map(int, value["least"])),
        _tensors(value["inputs"]),
        _tensors(value["parameters"]),
        _tensors(value["results"]),
        _tensors(value["starts"]),
        _tensors(value["solutions"]),
        tuple(_iterated(i) for i in value["iterations"]),
    )
    _check_formulas(signature, facts)
    image = ProgramImage(
        target,
        Host(str(host["machine"]), str(host["system"]), str(host["cpu"]), frozenset(map(str, host["features"]))),
        signature,
        facts,
        bytes(sections[HOST_CODE]),
        device,
    )
    parameters = tuple(StoredParameter(tuple(map(str, p["names"])), _kind(p["kind"])) for p in value["parameters"])
    return Manifest(str(value["name"]), str(value["parc"]), image, structure_from_json(value["structure"]), parameters)


def _block_memory(value: dict[str, Json]) -> BlockMemory:
    threads, limit, used = (int(value[key]) for key in ("threads", "limit", "used"))
    resident, streamed = (
        tuple((str(name), int(size)) for name, size in value[key]) for key in ("resident", "streamed")
    )
    return BlockMemory(threads, limit, used, resident, streamed)


def _iterated(value: dict[str, Json]) -> Iterated:
    tolerance = value["tolerance"]
    return Iterated(str(value["name"]), str(value["solver"]), None if tolerance is None else float(tolerance))


def _tensor_to_json(type_: TensorType) -> dict[str, Json]:
    return {
        "name": type_.name,
        "dtype": short_name(type_.dtype),
        "shape": [
            {"text": e.text, "size": e.size.to_json(), "symbol": e.symbol, "scale": e.scale, "offset": e.offset}
            for e in type_.shape
        ],
    }


def _tensors(value: Sequence[Json]) -> tuple[TensorType, ...]:
    return tuple(
        TensorType(
            str(t["name"]),
            _dtype(t["dtype"]),
            tuple(
                Extent(
                    str(e["text"]), Expression.from_json(e["size"]), int(e["symbol"]), int(e["scale"]), int(e["offset"])
                )
                for e in t["shape"]
            ),
        )
        for t in value
    )


def _check_formulas(signature: Signature, facts: Facts) -> None:
    """IndexError or ZeroDivisionError for a size that is no function of the program's symbols."""
    sizes = (1,) * len(signature.symbols)
    for type_ in (*signature.inputs, *signature.results, *signature.starts, *signature.solutions):
        type_.sizes(sizes)
    for type_ in signature.parameters:
        type_.sizes(())
    facts.arena.bytes(sizes, 1)


def _buffer(value: Json) -> ArenaBuffer:
    return ArenaBuffer(
        str(value["name"]), Expression.from_json(value["bytes"]), str(value["text"]), bool(value["per_member"])
    )


def _dtype(name: str) -> torch.dtype:
    found = getattr(torch, name)
    if not isinstance(found, torch.dtype):
        raise ValueError(f"there is no element type '{name}'")
    return found


def _kind(value: str) -> Kind:
    if value not in get_args(Kind):
        raise ValueError(f"there is no kind of parameter '{value}'")
    return value  # type: ignore[return-value]
