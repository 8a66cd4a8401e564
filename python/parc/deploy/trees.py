"""The structure of calls as JSON: what templates and signatures hold, and no more.

    (Tensor, {"h": Tensor, "step": 3})    {"tuple": [{"tensor": "x"}, {"dict": [[{"value": "h"}, ...], ...]}]}

Types other than those of Python and torch are known by the name under which they are registered with torch's pytree.
"""

import collections
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.utils._pytree as pytree

from parc.call_structure import CallStructure, NamedTensors, Structure
from parc.errors import LoadError, SaveError
from parc.template import Slot, Template, is_namedtuple, open_node

Json = Any
"""What `json` reads and writes."""
_PLAIN = (bool, int, str, type(None))
_SEQUENCES: dict[str, Callable[[list[Any]], object]] = {"tuple": tuple, "list": list, "size": torch.Size}


def structure_to_json(structure: Structure) -> Json:
    """SaveError where the structure of a call or of a result has no such form."""
    if isinstance(structure, NamedTensors):
        return {"inputs": list(structure.inputs)}
    if not isinstance(structure, CallStructure):
        raise SaveError(f"calls of the kind {type(structure).__name__} cannot be saved")
    positional, named = structure.arguments
    return {
        "signature": _signature_to_json(structure.signature),
        "names": list(structure.names),
        "defaults": [_to_json(value) for value in structure.defaults],
        "positional": [_to_json(t.tree) for t in positional],
        "named": [[name, _to_json(t.tree)] for name, t in named.items()],
        "results": _to_json(structure.results.tree),
    }


def structure_from_json(value: Json) -> Structure:
    """LoadError where a type is not registered here; KeyError, TypeError or ValueError for what is malformed."""
    if "inputs" in value:
        return NamedTensors(tuple(map(str, value["inputs"])))
    return CallStructure(
        _signature_from_json(value["signature"]),
        tuple(map(str, value["names"])),
        tuple(_from_json(v) for v in value["defaults"]),
        (
            tuple(Template(_from_json(v)) for v in value["positional"]),
            {str(name): Template(_from_json(v)) for name, v in value["named"]},
        ),
        Template(_from_json(value["results"])),
    )


def _signature_to_json(signature: inspect.Signature | None) -> Json:
    if signature is None:
        return None
    return [
        [p.name, p.kind.name, None if p.default is p.empty else _to_json(p.default)]
        for p in signature.parameters.values()
    ]


def _signature_from_json(value: Json) -> inspect.Signature | None:
    if value is None:
        return None
    kinds = inspect.Parameter
    return inspect.Signature(
        [
            kinds(name, getattr(kinds, kind), default=kinds.empty if default is None else _from_json(default))
            for name, kind, default in value
        ]
    )


def _to_json(tree: object) -> Json:
    kind = type(tree)
    if isinstance(tree, Slot):
        return {"tensor": tree.name}
    if kind in _PLAIN:
        return {"value": tree}
    if isinstance(tree, float):
        return {"float": tree.hex()}
    if isinstance(tree, torch.dtype):
        return {"dtype": str(tree).removeprefix("torch.")}
    if isinstance(tree, torch.device):
        return {"device": str(tree)}
    if kind in _SEQUENCES.values():
        return {kind.__name__.lower(): [_to_json(item) for item in tree]}  # type: ignore[attr-defined]
    if kind is dict:
        return {"dict": [[_to_json(key), _to_json(item)] for key, item in tree.items()]}  # type: ignore[attr-defined]
    if isinstance(tree, tuple) and is_namedtuple(tree):
        return {"namedtuple": kind.__name__, "fields": list(tree._fields), "items": [_to_json(i) for i in tree]}  # type: ignore[attr-defined]
    if isinstance(tree, tuple) and kind.__module__ == "torch.return_types":
        return {"return_type": kind.__name__, "items": [_to_json(item) for item in tree]}
    if pytree.tree_is_leaf(tree):
        raise SaveError(f"the program takes or gives {tree!r} besides tensors; saved are numbers, texts and None")
    parts, form = open_node(tree)
    try:
        return {"node": pytree.treespec_dumps(form), "items": [_to_json(item) for _, item in parts]}
    except (NotImplementedError, TypeError) as e:
        raise SaveError(
            f"the program takes or gives a {kind.__name__}, which can be saved once it is registered by a name: "
            f"torch.export.register_dataclass(..., serialized_type_name=...) does that for dataclasses ({e})"
        ) from None


def _from_json(value: Mapping[str, Json]) -> object:
    (kind, content), *_ = value.items()
    if kind == "tensor":
        return Slot(str(content))
    if kind == "value" and type(content) in _PLAIN:
        return content
    if kind == "float":
        return float.fromhex(content)
    if kind == "dtype" and isinstance(found := getattr(torch, content), torch.dtype):
        return found
    if kind == "device":
        return torch.device(content)
    if kind in _SEQUENCES:
        return _SEQUENCES[kind](_items(content))
    if kind == "dict":
        return {_from_json(key): _from_json(item) for key, item in content}
    if kind == "namedtuple":
        made: Callable[..., object] = collections.namedtuple(content, value["fields"])  # type: ignore[misc]
        return made(*_items(value["items"]))
    if kind == "return_type" and issubclass(found := getattr(torch.return_types, content), tuple):
        return found(_items(value["items"]))
    if kind == "node":
        try:
            form = pytree.treespec_loads(content)
        except NotImplementedError as e:
            raise LoadError(
                f"the program takes or gives values of a type that is not known here ({e}): import the module that "
                "registers it first"
            ) from None
        return form.unflatten(_items(value["items"]))
    raise ValueError(f"{value!r} describes no value")


def _items(content: Sequence[Json]) -> list[object]:
    return [_from_json(item) for item in content]
