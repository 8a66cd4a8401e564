"""The examples do what they say, on the real models and the real recording that they use."""

import re
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch

import parc

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples"))
import custom_cell
import demo
import g2p
import speech
import train_characters


def test_demo(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    # `make demo` runs all of it; speech and pronunciation have tests of their own.
    for part in ("speech_detection", "pronunciation"):
        monkeypatch.setattr(demo, part, lambda: demo.Result("elsewhere"))
    assert demo.main() == 0
    text = capsys.readouterr().out
    assert "All results equal their references." in text
    assert "131 waves for 512 steps" in text  # 4 layers of 128 steps


def test_demo_fails_when_a_result_is_wrong(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def show(error: float) -> demo.Result:
        result = demo.Result("one")
        result.add_equality(error, 1e-4, "here", "the reference")
        return result

    monkeypatch.setattr(demo, "speech_detection", lambda: show(1e-5))
    monkeypatch.setattr(demo, "pronunciation", lambda: show(1e-3))
    monkeypatch.setattr(demo, "custom_cells", lambda: show(torch.inf))
    assert demo.main() == 1
    assert "different from their references: one, one" in capsys.readouterr().out


def test_results_that_are_no_numbers_are_wrong() -> None:
    one = torch.ones(3)
    assert demo._error([one], [one + 0.25]) == 0.25
    assert demo._error([one], [one * torch.nan]) == torch.inf
    assert demo._error([one], [one[:2]]) == torch.inf


def test_pronunciation() -> None:
    """Words of all lengths, letters that the model does not know, and no word at all; 60 words at once."""
    package, model = g2p.package(), g2p.Pronouncer.trained()
    words = ["", "a", "zzz", "q-x", "naïve", "antidisestablishmentarianism", "supercalifragilisticexpialidocious"]
    words += [word.strip(".,`").lower() for word in (g2p.__doc__ or "").split()]
    pronounce = parc.compile(model, (g2p.encode(package, "word"),))
    for word in words:
        letters = g2p.encode(package, word)
        phonemes = pronounce(letters)
        assert torch.equal(phonemes, model(letters)), word
        assert g2p.decode(package, phonemes[0]) == package.predict(word), word
    batch = torch.randint(0, 29, (60, 7))
    assert torch.equal(pronounce(batch), model(batch))


def test_speech_is_found_where_it_was_annotated() -> None:
    """The package's notes of who speaks when, in the RTTM format, against the detector: both agree in most frames."""
    sound = speech.load(speech.sample_file())
    probabilities, _, _ = parc.compile(speech.model_file())(speech.frames(sound), *speech.state())
    seconds = torch.arange(len(probabilities)) * speech.FRAME / speech.RATE
    spoken = torch.zeros(len(probabilities), dtype=torch.bool)
    for line in speech.sample_file().with_suffix(".rttm").read_text().splitlines():
        start, length = map(float, line.split()[3:5])
        spoken |= (start <= seconds) & (seconds < start + length)
    agreement = float((spoken == (probabilities > 0.5)).float().mean())
    assert agreement > 0.9


def test_frames_overlap() -> None:
    sound = torch.arange(1.0, 1001.0)
    frames = speech.frames(sound)
    assert frames.shape == (2, 576)
    assert not frames[0, :64].any() and torch.equal(frames[0, 64:], sound[:512])
    assert torch.equal(frames[1, :64], sound[448:512]) and torch.equal(frames[1, 64:552], sound[512:])
    assert not frames[1, 552:].any()
    assert speech.frames(torch.zeros(0)).shape == (0, 576)


def test_segments() -> None:
    frame = speech.FRAME / speech.RATE
    probabilities = torch.tensor([0.9, 0.1, 0.8, 0.7, 0.2, 0.6])
    assert speech.segments(probabilities) == [(0, frame), (2 * frame, 4 * frame), (5 * frame, 6 * frame)]
    assert speech.segments(torch.zeros(0)) == []


def test_custom_cell_waves() -> None:
    model = custom_cell.PeepholeStack(layers=3, features=8, hidden=16)
    report = parc.explain(model, (torch.randn(4, 2, 8),), strategy="wavefront", sizes={"T": 50, "B": 1})
    assert (int(report.work), int(report.waves)) == (150, 52)


def test_training_on_characters(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A few steps of small models: the same losses as eager's, a picture of them, and states that carry over."""
    output = tmp_path / "curves.svg"
    sizes = "--layers 2 --hidden 24 --batch 3 --chunk 7 --steps 6 --every 2"
    options = f"--cell peephole --loss inside {sizes} --tolerance 1e-4 --control --output {output}"
    assert train_characters.main(options.split()) == 0
    text = capsys.readouterr().out
    assert re.findall(r"^step +(\d+)", text, re.MULTILINE) == ["1", "2", "4", "6"]
    assert "parc trains" in text and "with another last bit" in text
    picture = ElementTree.parse(output).getroot()
    curves = [e.attrib["d"].count("L") for e in picture.iter() if "L" in e.attrib.get("d", "")]
    assert curves == [5, 5], "six points each"


def test_training_that_differs_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = f"--layers 1 --hidden 8 --batch 2 --chunk 3 --steps 1 --tolerance -1 --output {tmp_path / 'a.svg'}"
    assert train_characters.main(options.split()) == 1
    assert "the losses differ by more than -1" in capsys.readouterr().err


def test_characters_are_cut_into_streams() -> None:
    text = train_characters.encode("ab\ncé~" * 4)
    assert text[:6].tolist() == [66, 67, 0, 68, 1, 95]
    chunks = train_characters.chunks(torch.arange(24), 2, 3)
    seen = [next(chunks) for _ in range(5)]
    assert [following.tolist() for _, following in seen[:1]] == [[[1, 13], [2, 14], [3, 15]]]
    streams = torch.cat([characters for characters, _ in seen[:3]])
    assert torch.equal(streams, torch.stack([torch.arange(9), torch.arange(12, 21)], 1))
    assert torch.equal(seen[3][0], seen[0][0]), "the text begins again"
