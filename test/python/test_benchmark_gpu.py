"""The benchmark of GPUs works without one: on the emulator, with the peers that run on a CPU."""

import importlib
import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "benchmarks"
QUICK = ("--target", "cuda-emulated", "--quick", "--model", "PeepholeLoop", "--precision", "f32", "--blocks", "2")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The benchmark in a process of its own."""
    command = [sys.executable, str(BENCHMARKS / "rnn_gpu.py"), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "python")}
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def test_programs_are_compiled_checked_and_timed_beside_their_peers(tmp_path: Path) -> None:
    results = tmp_path / "results.json"
    done = run(*QUICK, "--pass", "inference", "--torch-compile", "0", "--markdown", "-", "--json", str(results))
    assert done.returncode == 0, done.stderr
    report = json.loads(results.read_text())
    assert "no GPU" in report["machine"]["gpu"] and "no GPU" in done.stdout, "nobody is to take these times for a GPU's"
    (row,) = report["rows"]
    assert row["error"] < 1e-5 and row["parc_ms"] > 0
    assert row["peers"]["eager"]["error"] < 1e-5 and row["peers"]["eager"]["ratio"] > 0
    assert row["left_out"] == {"CUDA graph": "it needs a GPU"}
    assert row["goal"] is None and row["least_ms"] is None


def test_programs_compiled_elsewhere_are_loaded_and_checked(tmp_path: Path) -> None:
    written = run(*QUICK, "--compile-only", str(tmp_path))
    assert written.returncode == 0, written.stderr
    (program,) = tmp_path.iterdir()
    assert program.name == "PeepholeLoop-2x6x3x16-f32.parc"
    checked = run(*QUICK, "--load", str(tmp_path), "--self-check", "--torch-compile", "0")
    assert checked.returncode == 0, checked.stderr
    assert "parc ms" not in checked.stdout and "PeepholeLoop" in checked.stdout


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_machine_without_a_gpu_is_told_what_to_do() -> None:
    done = run()
    assert done.returncode == 2
    assert "finds no GPU" in done.stderr and "--target cuda-emulated --quick" in done.stderr
    assert "Traceback" not in done.stderr


def test_help_teaches_with_examples() -> None:
    done = run("--help")
    assert done.returncode == 0
    assert "examples:\n  rnn_gpu.py" in done.stdout


def test_the_least_time_is_that_of_the_slowest_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    cells, timing, case = (importlib.import_module(name) for name in ("cells", "gpu_timing", "gpu_case"))
    shape = cells.Shape(2, 8, 4, 16)
    x = torch.zeros(8, 4, 16)
    stack = case.Case(shape, "GRU", torch.nn.GRU(16, 16, 2), x, x, "bf16", False)
    factors = 2 * 2 * 16 * 3 * 16
    rates = timing.Rates(memory=1e30, cache=1e30, products={"bf16": 1e6}, barrier_seconds=None, on_chip=0)
    assert rates.least_seconds(stack) == (2 * 8 * 4 * factors / 1e6, "products")
    rates = timing.Rates(memory=1e30, cache=1e3, products={"bf16": 1e30}, barrier_seconds=1e-9, on_chip=100)
    seconds, what = rates.least_seconds(stack)
    assert what == "weights" and seconds == pytest.approx(8 * (2 * factors - 100) / 1e3)
    rates = timing.Rates(memory=1e30, cache=1e30, products={"bf16": 1e30}, barrier_seconds=1e-6, on_chip=100)
    assert rates.least_seconds(replace(stack, training=True)) == (pytest.approx(16e-6), "steps")


@pytest.mark.parametrize(
    ("model", "batch", "ratios", "cell"),
    [
        ("LSTM", 16, {"nn.LSTM/GRU": 2.1, "CUDA graph": 1.0}, "2x met"),
        ("LSTM", 64, {"nn.LSTM/GRU": 0.9}, "1x MISSED"),
        ("PeepholeLoop", 1, {"eager": 30.0, "torch.compile": 9.0}, "10x MISSED"),
        ("PeepholeLoop", 1, {"eager": 30.0}, "10x met"),
        ("GRU", 1, {"nn.LSTM/GRU": 9.0}, ""),
        ("LSTM", 1, {}, ""),
    ],
)
def test_a_goal_is_met_or_missed_against_the_fastest_of_its_peers(
    model: str, batch: int, ratios: dict[str, float], cell: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    cells, benchmark = (importlib.import_module(name) for name in ("cells", "rnn_gpu"))
    peers = {name: benchmark.PeerTime(1.0, 1.0, ratio, (ratio, ratio), 0.0) for name, ratio in ratios.items()}
    shape = cells.Shape(4, 128, batch, 512)
    goal, against = benchmark.goal(model, batch)
    row = benchmark.Row(shape, model, "f32", "inference", 0.0, {}, 1.0, 1.0, peers, 0.5, "steps", goal, against)
    cells_of_row = dict(zip(benchmark.COLUMNS, row.cells(), strict=True))
    assert cells_of_row["goal"] == cell
    assert cells_of_row["share"] == "50%"


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")
def test_the_kernel_in_triton_computes_what_nn_lstm_does() -> None:
    # Its interpreter runs the programs of a launch one after the other: with one step to a launch none waits.
    code = """
import torch, triton_lstm
for shape, multiprocessors in ((2, 5, 3, 24), 3), ((1, 4, 70, 16), 132):
    layers, steps, batch, hidden = shape
    model, x = torch.nn.LSTM(hidden, hidden, layers), torch.randn(steps, batch, hidden)
    with torch.no_grad():
        y = triton_lstm.TritonLstm(model, torch.float32, "ieee", multiprocessors)(x, steps_per_launch=1)
        torch.testing.assert_close(y, model(x)[0])
"""
    path = os.pathsep.join([str(BENCHMARKS), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "TRITON_INTERPRET": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
