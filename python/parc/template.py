"""The shape of a nested value whose leaves are tensors: tuples, lists, dicts and whatever torch's pytree knows.

take((x, (h, c), None), ...)   for the template of   (Tensor, (Tensor, Tensor), None)   appends   x, h, c
fill(iter([y, h, c]))          does the reverse
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch.utils._pytree as pytree
from torch import Tensor

from parc.errors import CallError


@dataclass(frozen=True)
class Slot:
    """The place of a tensor; `name` is what messages call it."""

    name: str


class Template:
    """A nested value with `Slot`s where the tensors are; all else is a constant that a call has to repeat."""

    def __init__(self, tree: object) -> None:
        self._tree = tree

    @staticmethod
    def of(value: object, name: str = "") -> "Template":
        """The template of an example; slots are called `name[0]`, `name['key']`, ..."""
        paths, spec = pytree.tree_flatten_with_path(value)
        leaves = [Slot(name + pytree.keystr(path)) if isinstance(leaf, Tensor) else leaf for path, leaf in paths]
        return Template(pytree.tree_unflatten(leaves, spec))

    @property
    def tree(self) -> object:
        """The nested value itself."""
        return self._tree

    def take(self, value: object, name: str, tensors: list[Tensor]) -> None:
        """Append the tensors of a value of this form, in order; `CallError` when it has another form."""
        _take(self._tree, value, name, tensors)

    def fill(self, values: Iterator[object]) -> object:
        """A value of this form with the next values in the places of the tensors."""
        return _give(self._tree, values)


def _take(tree: object, value: object, name: str, tensors: list[Tensor]) -> None:
    kind = type(tree)
    if kind is Slot:
        if not isinstance(value, Tensor):
            raise CallError(f"{tree.name} is {_words(value)}; the program was compiled for a tensor")  # type: ignore[attr-defined]
        tensors.append(value)
    elif kind is tuple or kind is list:
        if type(value) is not kind or len(value) != len(tree):  # type: ignore[arg-type]
            raise _mismatch(tree, value, name)
        for i, (inner, part) in enumerate(zip(tree, value, strict=True)):  # type: ignore[call-overload]
            _take(inner, part, name + f"[{i}]", tensors)
    elif kind is dict:
        if type(value) is not dict or value.keys() != tree.keys():  # type: ignore[attr-defined]
            raise _mismatch(tree, value, name)
        for key, inner in tree.items():  # type: ignore[attr-defined]
            _take(inner, value[key], name + f"[{key!r}]", tensors)
    elif is_namedtuple(tree):
        # One class of such tuples is as good as another: that of a saved program is made anew where it is loaded.
        if not is_namedtuple(value) or value._fields != tree._fields:  # type: ignore[attr-defined]
            raise _mismatch(tree, value, name)
        for field, inner, part in zip(tree._fields, tree, value, strict=True):  # type: ignore[attr-defined, call-overload]
            _take(inner, part, f"{name}.{field}", tensors)
    elif pytree.tree_is_leaf(tree):
        if isinstance(value, Tensor) or type(value) is not kind or not (value is tree or value == tree):
            raise _mismatch(tree, value, name)
    else:
        ours, form = open_node(tree)
        theirs, their_form = open_node(value)
        if form != their_form:
            raise _mismatch(tree, value, name)
        for (key, inner), (_, part) in zip(ours, theirs, strict=True):
            _take(inner, part, name + key, tensors)


def is_namedtuple(value: object) -> bool:
    """Whether this is a tuple of a class that `collections.namedtuple` or `typing.NamedTuple` made."""
    return isinstance(value, tuple) and type(value).__bases__ == (tuple,) and hasattr(value, "_fields")


def _give(tree: object, values: Iterator[object]) -> object:
    kind = type(tree)
    if kind is Slot:
        return next(values)
    if kind is tuple or kind is list:
        return kind(_give(inner, values) for inner in tree)  # type: ignore[attr-defined]
    if kind is dict:
        return {key: _give(inner, values) for key, inner in tree.items()}  # type: ignore[attr-defined]
    if pytree.tree_is_leaf(tree):
        return tree
    parts, form = open_node(tree)
    return form.unflatten([_give(inner, values) for _, inner in parts])


def open_node(value: object) -> tuple[list[tuple[str, object]], pytree.TreeSpec]:
    """One level of a pytree node: (key, child) pairs, and its form."""
    inside: Callable[[object], bool] = lambda child: child is not value  # noqa: E731
    paths, form = pytree.tree_flatten_with_path(value, is_leaf=inside)
    return [(pytree.keystr(path), child) for path, child in paths], form


def _mismatch(tree: object, value: object, name: str) -> CallError:
    return CallError(
        f"{name or 'the argument'} is {_words(value)}; the program was compiled for {_words(tree)} "
        "(compile again with such example inputs)"
    )


def _words(value: object) -> str:
    if isinstance(value, Slot | Tensor):
        return "a tensor"
    if type(value) in (tuple, list):
        return f"a {type(value).__name__} of {len(value)}"  # type: ignore[arg-type]
    if isinstance(value, dict):
        return f"a dict with the keys {', '.join(map(repr, value))}" if value else "an empty dict"
    text = repr(value)
    return text if len(text) <= 40 else f"a {type(value).__name__}"
