"""Compiles three real recurrent models, runs them on real input, and compares each with its reference.

    make demo

Every number is measured in this run.  The exit status is 1 when a result differs from its reference.
"""

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import custom_cell
import g2p
import onnxruntime
import speech
import torch
from torch import Tensor

import parc

WORDS = ("recurrent", "wavefront", "compiler", "polyhedral", "skewing", "sequentially", "lstm", "phonemically")
THREADS = torch.get_num_threads()
"""For parc, for PyTorch and for ONNX Runtime."""
RUNS = 7
"""A time is the least of this many runs, taken in turns with the reference's."""


@dataclass
class Result:
    """What one model showed, as lines of (label, text), and whether it was equal to its reference."""

    title: str
    lines: list[tuple[str, str]] = field(default_factory=list)
    equal: bool = True

    def add(self, label: str, text: str) -> None:
        self.lines.append((label, text))

    def add_equality(self, error: float, allowed: float, where: str, reference: str) -> None:
        """The largest error, and whether it is allowed."""
        self.equal = self.equal and error <= allowed
        verdict = "yes" if error <= allowed else f"NO, more than {allowed:.0e} is wrong"
        self.add("equal", f"{verdict}: largest error {error:.1e} against {reference}, {where}")

    def add_waves(self, report: parc.Report) -> None:
        """How many steps the recurrences have, and how many are left when all that can run at once does."""
        recurrences = [system for system in report.systems if system.span > 1]
        work, span = (sum(int(getattr(s, number)) for s in recurrences) for number in ("work", "span"))
        alone = span == work
        self.add("waves", f"{span} waves for {work} steps{', each of which needs the one before' if alone else ''}")

    def add_time(self, ours: float, theirs: float, reference: str) -> None:
        self.add("time", f"{ours * 1e3:.2f} ms; {reference} {theirs * 1e3:.2f} ms: {theirs / ours:.1f} times as fast")

    def __str__(self) -> str:
        return "\n".join([self.title, *(f"  {label:9}{text}" for label, text in self.lines)])


def main() -> int:
    print(f"parc and its references run on {THREADS} threads.\n")
    results = []
    for number, show in enumerate((speech_detection, pronunciation, custom_cells), 1):
        result = show()
        print(f"{number}. {result}\n", flush=True)
        results.append(result)
    wrong = [result.title for result in results if not result.equal]
    print(f"different from their references: {', '.join(wrong)}" if wrong else "All results equal their references.")
    return int(bool(wrong))


def speech_detection() -> Result:
    """The speech detector on a recording, against ONNX Runtime."""
    path, recording = speech.model_file(), speech.sample_file()
    result = Result(f"Speech detection: {path.name}, convolutions and an LSTM, on {recording.name}")
    detect = _compile(result, lambda: parc.compile(path, threads=THREADS))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    session = onnxruntime.InferenceSession(path, options)
    sound = speech.frames(speech.load(recording))

    def reference(frames: Tensor, *state: Tensor) -> list[Tensor]:
        names = (i.name for i in session.get_inputs())
        values = (t.numpy() for t in (frames, *state))
        return [torch.from_numpy(a) for a in session.run(None, dict(zip(names, values, strict=True)))]

    lengths = (1, 10, 100, len(sound))
    error = max(_error(detect(sound[:n], *speech.state()), reference(sound[:n], *speech.state())) for n in lengths)
    result.add_equality(error, 1e-4, f"at lengths {', '.join(map(str, lengths))}", "ONNX Runtime")
    probabilities = detect(sound, *speech.state())[0]
    found = speech.segments(probabilities)
    seconds = sum(end - start for start, end in found)
    whole = len(sound) * speech.FRAME / speech.RATE
    result.add("answer", f"speech in {len(found)} places, {seconds:.1f} s of {whole:.1f} s")
    result.add_waves(detect.explain({"sequence_length": len(sound)}))
    ours, theirs = _times(lambda: detect(sound, *speech.state()), lambda: reference(sound, *speech.state()))
    result.add_time(ours, theirs, "ONNX Runtime")
    return result


def pronunciation() -> Result:
    """The grapheme-to-phoneme model on words, against the package's numpy code and eager PyTorch."""
    result = Result("Pronunciation: g2p_en, a GRU encoder and a decoder that feeds back its own choices, on words")
    package, model = g2p.package(), g2p.Pronouncer.trained()
    letters = {word: g2p.encode(package, word) for word in WORDS}
    pronounce = _compile(result, lambda: parc.compile(model, (letters["compiler"],), threads=THREADS))
    said = {word: g2p.decode(package, pronounce(letters[word])[0]) for word in WORDS}
    wrong = [word for word in WORDS if said[word] != package.predict(word)]
    result.equal = not wrong
    verdict = f"NO, not for {', '.join(wrong)}" if wrong else "yes"
    result.add("equal", f"{verdict}: the phonemes of {len(WORDS)} words against the package's own numpy code")
    for word in WORDS[:3]:
        result.add("answer", f"{word}: {' '.join(said[word])}")
    result.add_waves(pronounce.explain({"T": letters[WORDS[0]].shape[1], "B": 1}))

    def all_words(run: Callable[[Tensor], Tensor]) -> Callable[[], object]:
        return lambda: [run(x) for x in letters.values()]

    ours, theirs = _times(all_words(pronounce), all_words(model))
    result.add_time(ours / len(WORDS), theirs / len(WORDS), "eager PyTorch")
    return result


def custom_cells() -> Result:
    """Four layers of a hand-written cell, against eager PyTorch; skewed, and as the cost model schedules them."""
    steps, batch, features = 128, 1, 64
    result = Result("A cell of one's own: 4 layers of LSTM with peepholes, in Python loops, on random sequences")
    torch.manual_seed(0)
    model = custom_cell.PeepholeStack(layers=4, features=features).eval().requires_grad_(False)
    example = (torch.randn(8, 2, features),)
    fast = _compile(result, lambda: parc.compile(model, example, threads=THREADS))
    skewed = parc.compile(model, example, threads=THREADS, strategy="wavefront")
    shapes = ((1, 1), (17, 3), (steps, batch))
    inputs = [torch.randn(t, b, features) for t, b in shapes]
    error = max(_error([f(x)], [model(x)]) for f in (fast, skewed) for x in inputs)
    where = f"at steps x batch {', '.join(f'{t} x {b}' for t, b in shapes)}"
    result.add_equality(error, 1e-4, where, "eager PyTorch")
    result.add_waves(skewed.explain({"T": steps, "B": batch}))
    ours, theirs = _times(lambda: fast(inputs[-1]), lambda: model(inputs[-1]))
    result.add_time(ours, theirs, "eager PyTorch")
    return result


def _compile(result: Result, compile_: Callable[[], parc.Module]) -> parc.Module:
    start = time.perf_counter()
    module = compile_()
    result.add("compile", f"{time.perf_counter() - start:.1f} s, once for every length")
    return module


def _error(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> float:
    """The largest difference; infinite where shapes differ or a value is not a number."""
    if any(a.shape != b.shape for a, b in zip(ours, theirs, strict=True)):
        return torch.inf
    return max(float((a - b).abs().nan_to_num(torch.inf).max()) for a, b in zip(ours, theirs, strict=True))


def _times(ours: Callable[[], object], theirs: Callable[[], object]) -> tuple[float, float]:
    """The seconds that each takes, the least of several runs in turns."""
    least = [torch.inf, torch.inf]
    for _ in range(RUNS):
        for k, run in enumerate((ours, theirs)):
            start = time.perf_counter()
            run()
            least[k] = min(least[k], time.perf_counter() - start)
    return least[0], least[1]


if __name__ == "__main__":
    sys.exit(main())
