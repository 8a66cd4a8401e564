"""What the documents say is true: their examples run, and their commands print what they promise."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import parc.passes
from parc.pipelines import pass_names
from parc.tools.opt import main

REPOSITORY = Path(__file__).parents[2]
README = (REPOSITORY / "README.md").read_text()
CONTRIBUTING = (REPOSITORY / "CONTRIBUTING.md").read_text()
DOCUMENTS = sorted([*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").glob("**/*.md")])


def test_the_readmes_examples_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    names: dict[str, object] = {}
    monkeypatch.chdir(tmp_path)
    use, training, sweeps, saving = _blocks(README, "python")
    exec(use, names)
    model, y = names["model"], names["y"]
    assert isinstance(model, torch.nn.LSTM)
    assert isinstance(y, torch.Tensor)
    assert y.shape == (500, 8, 128)
    exec(training, names)
    loss = names["loss"]
    assert isinstance(loss, torch.Tensor)
    assert loss.item() < 0.05, "the twenty steps begin at 0.12 or so"
    exec(sweeps, names)
    step, image, noise = (names[name] for name in ("step", "image", "noise"))
    assert callable(step)
    assert isinstance(image, torch.Tensor)
    assert torch.equal(image, step(image, noise))
    exec(saving, names)
    assert (tmp_path / "model.parc").is_file()


@pytest.mark.parametrize(
    ("command", "printed", "status"),
    [
        ("--emit=schedule --strategy=wavefront --sizes=T=64", "waves: T + 2 = 66", 0),
        ("--parc-verify", "must run after", 1),
    ],
)
def test_the_readmes_claims_are_shown_by_their_commands(
    command: str, printed: str, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(REPOSITORY)
    (line,) = [c for c in re.findall(r"`\.venv/bin/parc-opt ([^`]*)`", README) if command in c]
    assert main(shlex.split(line)) == status
    told = capsys.readouterr()
    assert printed in told.out + told.err


def test_the_readmes_files_exist() -> None:
    for script in re.findall(r"\.venv/bin/(?:python|pytest) ([^\s`]+)", README):
        assert (REPOSITORY / script).is_file(), script
    makefile = (REPOSITORY / "Makefile").read_text()
    for target in re.findall(r"`make (\w+)`|^    make (\w+)", README, re.MULTILINE):
        assert f"\n{''.join(target)}:" in makefile


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    for link in re.findall(r"\]\(([^)#]+)[^)]*\)", path.read_text()):
        assert link.startswith("https://") or (path.parent / link).exists(), link


def test_the_pass_in_contributing_works(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "drop_unused.py").write_text(_block(CONTRIBUTING, "python"))
    test = tmp_path / "drop_unused.mlir"
    test.write_text(_block(CONTRIBUTING, "mlir"))
    monkeypatch.setattr(parc.passes, "__path__", [*parc.passes.__path__, str(tmp_path)])
    pass_names.cache_clear()
    try:
        for options, prefix in (("", "CHECK"), ("=keep=G", "KEEP")):
            assert main([str(test), f"--parc-drop-unused{options}", "-o", str(tmp_path / "out.mlir")]) == 0
            check = [sys.executable, "-m", "filecheck", str(test), "--check-prefix", prefix]
            with (tmp_path / "out.mlir").open() as output:
                subprocess.run(check, stdin=output, check=True)
    finally:
        pass_names.cache_clear()
        sys.modules.pop("parc.passes.drop_unused", None)


def _block(page: str, language: str) -> str:
    """The first code block of a language in a Markdown page."""
    return _blocks(page, language)[0]


def _blocks(page: str, language: str) -> list[str]:
    return [part.split("```", 1)[0] for part in page.split(f"```{language}\n")[1:]]
