"""The benchmarks run and find parc's results equal to eager's; how fast anything is decides nothing here."""

import importlib
import json
import os
import subprocess
import sys
from argparse import ArgumentTypeError
from pathlib import Path
from types import ModuleType

import pytest
import torch

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "benchmarks"


def run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A benchmark in a process of its own."""
    command = [sys.executable, str(BENCHMARKS / script), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "python")}
    return subprocess.run(command, capture_output=True, text=True, env=environment)


@pytest.fixture
def common(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """What the benchmarks share, as they import it."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("common")


@pytest.fixture
def cells(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The models that the benchmarks run."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("cells")


def models(*names: str) -> list[str]:
    """The options that choose some of the stacks: tests take one that PyTorch has a kernel for, and one loop."""
    return [word for name in names for word in ("--model", name)]


def test_rnn_cpu_compares_stacks_with_eager(tmp_path: Path) -> None:
    results, page = tmp_path / "results.json", tmp_path / "page.md"
    done = run("rnn_cpu.py", "--quick", *models("GRU", "PeepholeLoop"), "--json", str(results), "--markdown", str(page))
    assert done.returncode == 0, done.stderr
    report = json.loads(results.read_text())
    assert [row["model"] for row in report["rows"]] == ["GRU", "PeepholeLoop"]
    assert all(row["error"] < 1e-5 for row in report["rows"])
    assert report["machine"]["torch"] == torch.__version__
    for text in (done.stdout, page.read_text()):
        assert "PeepholeLoop" in text and "speed-up" in text
    assert "Peephole" not in done.stderr.splitlines()[0], "progress is on stderr, the table on stdout"


def test_training_compares_every_gradient_with_eager() -> None:
    done = run("training.py", "--quick", *models("LSTM", "GruLoop"), "--json", "-")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert [row["model"] for row in report["rows"]] == ["LSTM", "GruLoop"]
    assert all(row["error"] < 1e-5 and row["parc_step_ms"] > 0 for row in report["rows"])


def test_compile_time_serves_all_sizes_from_one_compile() -> None:
    done = run("compile_time.py", "--quick", "--shape", "2,1,2,16", "--json", "-")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert [(row["compiler"], row["steps"]) for row in report["rows"]] == [("parc", 8), ("parc", 32)]
    served = report["served"]
    assert (served["calls"], served["compiles"]) == (6, 1)
    assert served["error"] < 1e-5


def test_contractions_compares_every_gradient_with_pytorch() -> None:
    done = run("contractions.py", "--quick", "--json", "-")
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["rows"]
    assert [(row["element"], row["gradient"]) for row in rows] == [
        (element, gradient) for element in ("f32", "f64") for gradient in ("weight", "bias")
    ]


def test_scan_compares_every_gradient_with_eager() -> None:
    done = run("scan.py", "--quick", "--json", "-")
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)["rows"]
    assert row["size"] == "512, 1, 16" and row["scan_ms"] > 0


@pytest.mark.parametrize(
    "script", ["rnn_cpu.py", "training.py", "compile_time.py", "contractions.py", "memory.py", "newton.py", "scan.py"]
)
def test_help_teaches_with_examples(script: str) -> None:
    done = run(script, "--help")
    assert done.returncode == 0
    assert f"examples:\n  {script}" in done.stdout


@pytest.mark.parametrize("text", ["4,128,1", "4,128,0,16", "a,b,c,d", "4,-1,2,2"])
def test_a_malformed_shape_is_refused(text: str, cells: ModuleType) -> None:
    with pytest.raises(ArgumentTypeError, match=f"four positive numbers L,T,B,H, not '{text}'"):
        cells.Shape.parse(text)


def test_a_wrong_result_is_not_timed(common: ModuleType) -> None:
    right = (torch.ones(3), [torch.zeros(0, 2)])
    assert common.check_equal("parc", right, right) == 0
    with pytest.raises(common.ResultsDiffer, match=r"parc: a result is 0\.5 off"):
        common.check_equal("parc", torch.full((3,), 1.5), torch.ones(3))
    with pytest.raises(common.ResultsDiffer, match=r"parc: a result is inf off"):
        common.check_equal("parc", torch.full((3,), torch.nan), torch.ones(3))
    with pytest.raises(common.ResultsDiffer, match=r"shape \[2\], not \[3\]"):
        common.check_equal("parc", torch.ones(2), torch.ones(3))


def test_programs_are_timed_in_turns(common: ModuleType) -> None:
    order: list[str] = []
    programs = {name: lambda name=name: order.append(name) for name in ("a", "b")}
    timing = common.time_in_turns(programs, rounds=4, calls_seconds=0)
    assert {name: len(seconds) for name, seconds in timing.seconds.items()} == {"a": 4, "b": 4}
    assert len(timing.ratios("a", "b")) == 4
    turns = "".join(order)[4:]  # after the calls that find out how long one takes
    assert turns == "aabbbbaaaabbbbaa"


def test_memory_is_measured_beside_what_is_planned() -> None:
    done = run("memory.py", "--quick", "--shape", "1,512,4,32", "--json", "-")
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["rows"]
    assert [row["planned"] is None for row in rows] == [True, False, True, False, False]
    assert rows[4]["planned"] < rows[3]["planned"], "a limit makes the step take less"
