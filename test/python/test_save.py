"""Saved programs: they give what the compiled ones give, to the bit, and a damaged file is refused."""

import copy
import json
import os
import shutil
import subprocess
import sys
from collections import OrderedDict, namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import parc
from parc import CallError, LoadError, SaveError
from parc.deploy.container import read_container, write_container

Pair = namedtuple("Pair", ["hidden", "last"])


@dataclass
class Output:
    states: Tensor
    last: Tensor


torch.export.register_dataclass(Output, serialized_type_name="test_save.Output")

SENTINEL = object()


class Tagger(nn.Module):
    """An embedding, a masked recurrence in float64, and a result of many parts."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(11, 6, dtype=torch.float64)
        self.inner = nn.Linear(6, 6, dtype=torch.float64)
        self.register_buffer("start", torch.randn(6, dtype=torch.float64))
        self.register_buffer("scale", torch.rand(6, dtype=torch.float64), persistent=False)

    def forward(
        self, tokens: Tensor, mask: Tensor, *, state: tuple[Tensor] | None = None, bias: float = 0.5
    ) -> dict[str, object]:
        x = self.table(tokens)
        h = self.start.expand(x.shape[1], 6) if state is None else state[0]
        states = []
        for t in range(x.shape[0]):
            h = torch.where(mask[t, :, None], torch.tanh(self.inner(h) + x[t]), h)
            states.append(h * self.scale)
        y = torch.stack(states)
        return {"pair": Pair(y, h), "rest": [None, 3, (tokens + 1, OrderedDict(bias=h + bias))], 7: float("inf")}


class Tied(nn.Module):
    """One weight under two names, and tensors that are in no state_dict."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(5, 5, bias=False)
        self.second = nn.Linear(5, 5, bias=False)
        self.second.weight = self.first.weight
        self.offset = torch.randn(5)

    def forward(self, x: Tensor) -> Output:
        h = torch.zeros_like(x[0])
        for t in range(x.shape[0]):
            h = torch.tanh(self.first(x[t]) + self.second(h) + self.offset)
        return Output(h + x, h)


def tagger_call(steps: int, rows: int) -> tuple[tuple[Tensor, Tensor], dict[str, object]]:
    return (torch.randint(11, (steps, rows)), torch.rand(steps, rows) < 0.6), {}


@pytest.fixture(scope="module")
def tagger() -> parc.Module:
    torch.manual_seed(0)
    return parc.compile(Tagger(), tagger_call(6, 2)[0])


@pytest.fixture(scope="module")
def lstm() -> parc.Module:
    torch.manual_seed(1)
    model = nn.LSTM(4, 8, num_layers=2)
    state = (torch.randn(2, 3, 8), torch.randn(2, 3, 8))
    return parc.compile(model, (torch.randn(6, 3, 4), state))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a small program."""
    torch.manual_seed(2)
    path = tmp_path_factory.mktemp("saved") / "small.parc"
    parc.compile(nn.Linear(3, 2), torch.randn(4, 3)).save(path)
    return path


def saved(module: parc.Module, folder: Path, **options: Any) -> parc.LoadedModule:
    module.save(folder / "model.parc")
    return parc.load(folder / "model.parc", **options)


@torch.no_grad()
def check_same(a: Callable[..., object], b: Callable[..., object], /, *args: object, **kwargs: object) -> None:
    """Both give values of one structure with the same bits."""
    first, second = a(*args, **kwargs), b(*args, **kwargs)
    ours, form = torch.utils._pytree.tree_flatten(plain(first))
    theirs, their_form = torch.utils._pytree.tree_flatten(plain(second))
    assert form == their_form
    for x, y in zip(ours, theirs, strict=True):
        if isinstance(x, Tensor):
            assert x.dtype == y.dtype and x.shape == y.shape and torch.equal(x, y)
        else:
            assert x == y


def plain(value: object) -> object:
    """The value with dicts of fields in the places of named tuples, whose class is another when it is loaded."""
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return {name: plain(v) for name, v in value._asdict().items()}
    if isinstance(value, dict):
        return type(value)((k, plain(v)) for k, v in value.items())
    return type(value)(map(plain, value)) if isinstance(value, tuple | list) else value


def test_a_loaded_program_gives_the_same_bits_at_all_sizes(lstm: parc.Module, tmp_path: Path) -> None:
    loaded = saved(lstm, tmp_path)
    for steps, rows in (6, 3), (17, 1), (1, 5), (40, 8):
        state = torch.randn(2, rows, 8), torch.randn(2, rows, 8)
        check_same(lstm, loaded, torch.randn(steps, rows, 4), state)
    assert repr(loaded) == repr(lstm).replace("parc.Module", "parc.LoadedModule")[:-1] + ", cpu)"


def test_the_number_of_threads_is_that_of_the_machine_that_runs_it(lstm: parc.Module, tmp_path: Path) -> None:
    one, three = saved(lstm, tmp_path, threads=1), parc.load(tmp_path / "model.parc", threads=3)
    check_same(one, three, torch.randn(9, 2, 4), (torch.randn(2, 2, 8), torch.randn(2, 2, 8)))
    with pytest.raises(ValueError, match="threads is at least 1"):
        parc.load(tmp_path / "model.parc", threads=0)


def test_calls_and_results_of_many_parts(tagger: parc.Module, tmp_path: Path) -> None:
    loaded = saved(tagger, tmp_path)
    for steps, rows in (6, 2), (13, 4), (1, 1):
        args, kwargs = tagger_call(steps, rows)
        check_same(tagger, loaded, *args, **kwargs)
        check_same(tagger, loaded, args[0], mask=args[1], bias=0.5)
    result: Any = loaded(*args)
    assert result["pair"].hidden.shape == (1, 1, 6) and result[7] == float("inf")


def test_calls_that_do_not_fit_are_refused_in_the_same_words(tagger: parc.Module, tmp_path: Path) -> None:
    loaded = saved(tagger, tmp_path)
    (tokens, mask), _ = tagger_call(6, 2)
    calls: list[tuple[tuple[object, ...], dict[str, object]]] = [
        ((tokens.float(), mask), {}),
        ((tokens, mask[:5]), {}),
        ((tokens,), {}),
        ((tokens, mask), {"bias": 0.25}),
        ((tokens + 8, mask), {}),  # a check of the model's own
    ]
    for args, kwargs in calls:
        with pytest.raises(CallError) as expected, torch.no_grad():
            tagger(*args, **kwargs)
        with pytest.raises(CallError) as found, torch.no_grad():
            loaded(*args, **kwargs)
        assert str(found.value) == str(expected.value)


def test_memory_is_planned_as_in_the_compiled_program(tagger: parc.Module, tmp_path: Path) -> None:
    args, _ = tagger_call(9, 3)
    with torch.no_grad():
        assert str(saved(tagger, tmp_path).memory(*args)) == str(tagger.memory(*args))


def test_shared_weights_registered_types_and_other_tensors(tmp_path: Path) -> None:
    model = Tied()
    compiled = parc.compile(model, torch.randn(5, 2, 5))
    loaded = saved(compiled, tmp_path)
    assert loaded.state_dict().keys() == model.state_dict().keys()
    assert loaded.get_parameter("first.weight") is loaded.get_parameter("second.weight")
    x = torch.randn(8, 3, 5)
    with torch.no_grad():
        ours, theirs = loaded(x), compiled(x)
    assert type(ours) is Output and torch.equal(ours.states, theirs.states)
    other = Tied()
    other.offset = model.offset
    loaded.load_state_dict(other.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(loaded(x).states, other(x).states)


def test_weights_can_be_replaced_and_the_file_stays(tagger: parc.Module, tmp_path: Path) -> None:
    loaded = saved(tagger, tmp_path)
    before = (tmp_path / "model.parc").read_bytes()
    assert loaded.state_dict().keys() == tagger.state_dict().keys()
    torch.manual_seed(5)
    other = Tagger()
    other.scale.copy_(tagger.scale)
    loaded.load_state_dict(other.state_dict())
    args, _ = tagger_call(7, 2)
    with torch.no_grad():
        torch.testing.assert_close(loaded(*args)["pair"].hidden, other(*args)["pair"].hidden)
    loaded.get_buffer("start").zero_()
    other.start.zero_()
    with torch.no_grad():
        torch.testing.assert_close(loaded(*args)["pair"].hidden, other(*args)["pair"].hidden)
    assert (tmp_path / "model.parc").read_bytes() == before
    check_same(tagger, parc.load(tmp_path / "model.parc"), *args)


def test_the_weights_of_now_are_saved(tmp_path: Path) -> None:
    model = nn.Linear(3, 2)
    compiled = parc.compile(model, torch.randn(4, 3))
    with torch.no_grad():
        model.weight.add_(1)
    check_same(model, saved(compiled, tmp_path), torch.randn(6, 3))


def test_a_loaded_program_says_that_it_has_no_gradients(small: Path) -> None:
    loaded = parc.load(small)
    with pytest.raises(CallError, match="computes no gradients"):
        loaded(torch.randn(4, 3, requires_grad=True))
    loaded.requires_grad_()
    with pytest.raises(CallError, match="computes no gradients"):
        loaded(torch.randn(4, 3))
    with torch.no_grad():
        loaded(torch.randn(4, 3, requires_grad=True))


def test_a_loaded_program_is_not_copied(small: Path) -> None:
    with pytest.raises(TypeError, match="load its file again"):
        copy.deepcopy(parc.load(small))


def test_a_model_file_and_a_function_can_be_saved(tmp_path: Path) -> None:
    text = """func.func @main(%a: tensor<2x3xf32> {parc.name = "a"}, %b: tensor<2x3xf32> {parc.name = "b"})
      -> (tensor<2x3xf32>, tensor<2x3xf32>) {
      %e = tensor.empty() : tensor<2x3xf32>
      %s = linalg.add ins(%a, %b : tensor<2x3xf32>, tensor<2x3xf32>) outs(%e : tensor<2x3xf32>) -> tensor<2x3xf32>
      %p = linalg.mul ins(%a, %b : tensor<2x3xf32>, tensor<2x3xf32>) outs(%e : tensor<2x3xf32>) -> tensor<2x3xf32>
      return %s, %p : tensor<2x3xf32>, tensor<2x3xf32>
    }"""
    (tmp_path / "model.mlir").write_text(text)
    compiled = parc.compile(tmp_path / "model.mlir")
    loaded = saved(compiled, tmp_path)
    a, b = torch.randn(2, 3), torch.randn(2, 3)
    check_same(compiled, loaded, a, b=b)
    with pytest.raises(CallError, match="input 'b' is missing"):
        loaded(a)
    function = parc.compile(lambda x: torch.tanh(x).max(1), torch.randn(5, 4))
    check_same(function, saved(function, tmp_path), torch.randn(9, 4))


def test_values_without_a_description_are_refused(tmp_path: Path) -> None:
    compiled = parc.compile(lambda x: (torch.tanh(x), SENTINEL), torch.randn(3))
    with pytest.raises(SaveError, match="besides tensors"):
        compiled.save(tmp_path / "model.parc")
    assert not list(tmp_path.iterdir())


def test_what_is_not_compiled_cannot_be_saved(tmp_path: Path) -> None:
    with pytest.raises(CallError, match="not compiled yet"):
        parc.compile(nn.Linear(3, 2)).save(tmp_path / "model.parc")


def test_a_file_in_use_can_be_replaced(tmp_path: Path) -> None:
    path, x = tmp_path / "model.parc", torch.randn(4, 3)
    models = [nn.Linear(3, 2), nn.Linear(3, 5)]
    loaded = []
    for model in models:
        parc.compile(model, x).save(path)
        loaded.append(parc.load(path))
    for model, program in zip(models, loaded, strict=True):
        with torch.no_grad():
            torch.testing.assert_close(program(x), model(x))
    assert [p.name for p in tmp_path.iterdir()] == ["model.parc"]


# Damage


def check_refused(path: Path, content: bytes, match: str | None = None) -> None:
    path.write_bytes(content)
    with pytest.raises(LoadError, match=match) as error:
        parc.load(path)
    assert str(path) in str(error.value)


@pytest.fixture(scope="module")
def damaged(small: Path) -> Path:
    return small.with_name("damaged.parc")


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_flipped_bit_anywhere_is_refused(small: Path, damaged: Path, data: st.DataObject) -> None:
    content = bytearray(small.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    check_refused(damaged, bytes(content))


def test_a_flipped_bit_in_the_header_or_between_sections_is_refused(small: Path, damaged: Path) -> None:
    content = small.read_bytes()
    _, sections = read_container(small)
    ends, start = [], len(content)
    for section in reversed(sections.values()):
        start = content.rindex(bytes(section), 0, start)
        ends.append(start)
    for at in [*range(64), *(end - 1 for end in ends)]:
        check_refused(damaged, content[:at] + bytes([content[at] ^ 0x10]) + content[at + 1 :])


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_a_part_of_a_file_is_refused(small: Path, damaged: Path, data: st.DataObject) -> None:
    content = small.read_bytes()
    check_refused(damaged, content[: data.draw(st.integers(0, len(content) - 1))])


def test_more_than_a_file_is_refused(small: Path, damaged: Path) -> None:
    check_refused(damaged, small.read_bytes() + b"\0", "1 bytes follow")


def test_what_is_no_program_is_refused(small: Path, damaged: Path, tmp_path: Path) -> None:
    check_refused(damaged, b"", "it is empty")
    check_refused(damaged, b"PK\x03\x04" + bytes(100), "does not start as one")
    check_refused(damaged, small.read_bytes()[:8] + b"\x09" + small.read_bytes()[9:], "has version 9 of the format")
    with pytest.raises(LoadError, match="is no file"):
        parc.load(tmp_path)
    with pytest.raises(LoadError, match="No such file"):
        parc.load(tmp_path / "absent.parc")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(LoadError, match="is no file"):
        parc.load(tmp_path / "pipe")


def rewritten(small: Path, path: Path, change: Callable[[dict[str, Any], dict[str, Any]], None]) -> Path:
    """The file with another manifest or other sections, and right checksums."""
    manifest, sections = read_container(small)
    kept: dict[str, Any] = dict(sections)
    del manifest["sections"]
    change(manifest, kept)
    write_container(path, manifest, kept)
    return path


CHANGES: dict[str, Callable[[dict[str, Any], dict[str, Any]], object]] = {
    "target": lambda m, s: m.update(target="tpu"),
    "a key less": lambda m, s: m.pop("results"),
    "a type": lambda m, s: m.update(symbols=3),
    "an element type": lambda m, s: m["inputs"][0].update(dtype="load"),
    "an expression": lambda m, s: m["results"][0]["shape"][0].update(size=["**", 2, 3]),
    "another symbol": lambda m, s: m["results"][0]["shape"][0].update(size="s7"),
    "a division by zero": lambda m, s: m["arena"].append(
        [dict(name="", bytes=["//", 1, 0], text="", per_member=False)]
    ),
    "a parameter's size": lambda m, s: m["parameters"][0]["shape"][0].update(size=4),
    "a parameter less": lambda m, s: s.pop("parameter 1"),
    "no code": lambda m, s: s.pop("host"),
    "a device": lambda m, s: m.update(target="cuda"),
    "a path": lambda m, s: s.update({"../../etc/passwd": b"x"}),
    "a tree": lambda m, s: m["structure"].update(results={"constant": 1}),
    "a type of torch": lambda m, s: m["structure"].update(results={"return_type": "__builtins__", "items": []}),
    "much nesting": lambda m, s: m["structure"].update(results=json.loads('{"list": [' * 400 + "]}" * 400)),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_manifest_that_makes_no_sense_is_refused(what: str, small: Path, tmp_path: Path) -> None:
    path = rewritten(small, tmp_path / "other.parc", lambda m, s: CHANGES[what](m, s) and None)
    with pytest.raises(LoadError, match="not valid"):
        parc.load(path)


def test_code_for_another_machine_is_refused(small: Path, tmp_path: Path) -> None:
    path = tmp_path / "other.parc"
    rewritten(small, path, lambda m, s: m["host"]["features"].append("avx1024"))
    with pytest.raises(LoadError, match="may use avx1024, which this CPU .* does not have"):
        parc.load(path)
    rewritten(small, path, lambda m, s: m["host"].update(machine="sparc"))
    with pytest.raises(LoadError, match="compiled for .* on sparc"):
        parc.load(path)
    rewritten(small, path, lambda m, s: s.update(host=b"\x7fELF" + bytes(s["host"])[4:2000]))
    with pytest.raises(LoadError, match="code cannot be loaded"):
        parc.load(path)
    with pytest.raises(LoadError, match="does not run on cuda"):
        parc.load(small, device="cuda")


def test_types_that_are_not_registered_are_named(tmp_path: Path) -> None:
    compiled = parc.compile(Tied(), torch.randn(5, 2, 5))
    compiled.save(tmp_path / "model.parc")
    text = (tmp_path / "model.parc").read_bytes()
    assert b"test_save.Output" in text
    manifest, sections = read_container(tmp_path / "model.parc")
    structure: Any = manifest["structure"]
    structure["results"]["node"] = structure["results"]["node"].replace("test_save.Output", "elsewhere.Output")
    write_container(tmp_path / "other.parc", {k: v for k, v in manifest.items() if k != "sections"}, sections)
    with pytest.raises(LoadError, match="elsewhere.Output.*import the module that registers it"):
        parc.load(tmp_path / "other.parc")


def test_the_examples_of_the_documentation_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[2] / "docs" / "deployment.md").read_text()
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(page.split("```python\n")[1].split("```")[0], names)
    assert names["y"].shape == (300, 4, 16)


RUN = """
import sys

class Absent:
    names = ("torch_mlir", "islpy", "networkx", "onnx", "parc.passes", "parc.poly", "parc.codegen", "parc.importers")

    def find_spec(self, name, path=None, target=None):
        if any(name == absent or name.startswith(absent + ".") for absent in self.names):
            raise ImportError(name + " is not installed")

sys.meta_path.insert(0, Absent())
import torch
import parc

path, inputs, expected = sys.argv[1:]
program = parc.load(path)
with torch.no_grad():
    assert torch.equal(program(*torch.load(inputs))["pair"][0], torch.load(expected))
print(program)
"""


def test_a_saved_program_runs_where_no_compiler_is_installed(tagger: parc.Module, tmp_path: Path) -> None:
    tagger.save(tmp_path / "model.parc")
    args, _ = tagger_call(12, 3)
    with torch.no_grad():
        expected: Any = tagger(*args)
    torch.save(args, tmp_path / "inputs.pt")
    torch.save(expected["pair"].hidden, tmp_path / "expected.pt")
    package = tmp_path / "runtime"
    shutil.copytree(Path(parc.__file__).parent, package / "parc", ignore=shutil.ignore_patterns("passes", "*.cpp"))
    files = [str(tmp_path / name) for name in ("model.parc", "inputs.pt", "expected.pt")]
    done = subprocess.run(
        [sys.executable, "-c", RUN, *files],
        env={**os.environ, "PYTHONPATH": str(package)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("parc.LoadedModule(Tagger(tokens: int64[T, B]")
