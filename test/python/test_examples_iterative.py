"""The examples of iterative solvers: their steps are triangular systems, and all ways to solve these agree."""

import importlib
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples"))
import decoding
import densenet
import digits
import made
import pixelcnn
import rnn_gradients
from sweeps import Step, jacobi, one_by_one

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def needs(step: Step, start: Tensor) -> Tensor:
    """Whether the result i changes when the unknown j does: `[i, j]`, tried at one point."""
    before = step(start)
    changed = []
    for j in range(start.shape[1]):
        other = start.clone()
        other[:, j] += 1
        changed.append((step(other) != before).any(0))
    return torch.stack(changed, 1)


def made_step(images: int, pixels: int) -> Step:
    step, noise = made.Sampler(made.Made(pixels)), torch.rand(images, pixels)
    return lambda x: step(x, noise)


def pixelcnn_step(images: int, size: int) -> Step:
    step, noise = pixelcnn.Sampler(pixelcnn.PixelCNN(8, 1)), pixelcnn.draw_noise(images, size)
    return lambda x: step(x.view(images, 1, size, size), *noise).flatten(1)


@pytest.mark.parametrize("seed", range(3))
@torch.no_grad()
def test_sweeps_find_what_sampling_in_order_does(seed: int) -> None:
    torch.manual_seed(seed)
    start = torch.zeros(2, 25)
    for step in (made_step(2, 25), pixelcnn_step(2, 5)):
        found = jacobi(step, start)
        assert torch.equal(found.values, one_by_one(step, start))
        assert found.sweeps <= 25
        assert jacobi(step, found.values).sweeps == 1


@torch.no_grad()
def test_models_see_only_what_comes_before() -> None:
    torch.manual_seed(0)
    model, mixtures = made.Made(20), pixelcnn.PixelCNN(8, 2)
    shape = (1, 1, 4, 5)

    def mixture(x: Tensor) -> Tensor:
        return mixtures(x.view(shape)).flatten(2).sum(1)

    for step in (model, mixture):
        assert not needs(step, torch.rand(1, 20)).triu().any()
    assert needs(mixture, torch.rand(1, 20))[6:, 0].any()


@torch.no_grad()
def test_decoding_in_all_ways(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("how much wood\n would a  woodchuck chuck " * 5)
    text, alphabet = decoding.read(tmp_path / "text")
    assert text.startswith("how much wood would a woodchuck chuck how")
    table = decoding.Table(text)
    assert table.guess("would a woodchuck", 6) == " chuck"
    assert table.guess("???wo", 2) == "od"
    step = decoding.Decoder(decoding.Transformer(len(alphabet))).eval()
    said = text[: decoding.CONTEXT]
    context = decoding.encode(said, alphabet)

    def run(window: Tensor) -> Tensor:
        return step(window, context)

    expected = one_by_one(run, torch.zeros(1, decoding.WINDOW, dtype=torch.long))
    found, runs = decoding.renewed(run, table, said, alphabet)
    assert torch.equal(decoding.encode(found, alphabet), expected)
    assert 1 <= runs <= decoding.WINDOW


def test_the_depth_of_a_densenet_is_the_number_of_its_weights() -> None:
    for blocks in ((1,), (2, 3), (1, 1, 1)):
        layers = [m for m in densenet.DenseNet(4, blocks).modules() if isinstance(m, nn.Conv2d | nn.Linear)]
        assert len(layers) == densenet.depth(blocks)


def test_the_reader_has_a_gradient_for_every_weight() -> None:
    torch.manual_seed(0)
    model = rnn_gradients.PixelReader(8)
    assert all(gradient.abs().max() > 0 for gradient in rnn_gradients.gradients(model, torch.rand(5, 2)))


def test_pictures() -> None:
    image = torch.tensor([[[0.0, 1.0], [0.5, 0.0]]])
    assert digits.picture(image.repeat(2, 1, 1)).splitlines() == ["  @@ |   @@", "==   | =="]


def test_the_benchmark_compares_before_it_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    benchmark, cases = (importlib.import_module(name) for name in ("iterative", "iterative_cases"))
    right = torch.tensor([1.0, 4.0])

    def case(found: Tensor, allowed: float) -> object:
        programs = {"eager": lambda: right, "exact": lambda: [right], "sweeps": lambda: found}
        return cases.Case("task", "setting", 100, "7x", programs, lambda: 10, depth=2, allowed=allowed)

    row = benchmark._row(case(right + 0.5, 0.2), 1)
    assert (row.sweeps, row.error) == (10, 0.125)
    assert {"10 x 2", "5.0x", "7x"} < set(row.cells())
    assert len(row.cells()) == len(benchmark.COLUMNS)
    for wrong in (right + 0.5, right * torch.nan):
        with pytest.raises(importlib.import_module("common").ResultsDiffer, match="sweeps of task"):
            benchmark._row(case(wrong, 0.1), 1)


def test_a_sample_from_parc_is_that_of_sampling_in_order(capsys: pytest.CaptureFixture[str]) -> None:
    assert made.main(["--size", "4", "--images", "2", "--steps", "5"]) == 0
    text = capsys.readouterr().out
    assert "one by one: 16 runs of the network" in text
    assert "pixels that differ: none" in text
