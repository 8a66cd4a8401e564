"""The published cases of iterative solvers, on the models of the examples: what is computed, and by which programs."""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from common import progress
from torch import Tensor, nn

import parc

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))
import decoding
import densenet
import digits
import g2p
import made
import pixelcnn
import rnn_gradients
from sweeps import one_by_one

Compute = Callable[[], object]


@dataclass(frozen=True)
class Case:
    """One task: the same results from eager PyTorch, from parc's exact program and from its sweeps.

    steps: how many one after the other compute the results exactly; sweeps: how many the last call took.
    depth: steps in a sweep that follow each other.
    paper: the sequential steps and the sweeps that were published, or what else was.
    allowed: the largest error of the sweeps, relative to the largest element of a result; 0 for discrete results.
    """

    task: str
    setting: str
    steps: int
    paper: str
    programs: Mapping[str, Compute]
    sweeps: Callable[[], int]
    depth: int = 1
    allowed: float = 0.0


@dataclass(frozen=True)
class Options:
    """threads: of parc's programs; quick: tiny models, hardly trained."""

    threads: int
    quick: bool

    def steps(self, number: int) -> int:
        """Of training."""
        return 10 if self.quick else number


def rnn_case(options: Options) -> Case:
    """All gradients of a recurrent network that reads 10 x 10 pixels; forward and backward pass by sweeps."""
    size, tolerance = 4 if options.quick else 10, 1e-6
    model = rnn_gradients.PixelReader()
    x = digits.load_images(size)[:1].flatten(1).T.contiguous()
    how = parc.Iteration(tolerance=tolerance)
    exact = parc.compile(model, (x,), threads=options.threads, training=True)
    sweep = parc.compile(model, (x,), threads=options.threads, strategy="jacobi", iteration=how, training=True)
    return Case(
        task="RNN gradients",
        setting=f"{rnn_gradients.HIDDEN} units, not trained, tolerance {tolerance:g}",
        steps=size**2,
        paper="100/~14 = 7x",
        programs=_gradients({"eager": model, "exact": exact, "sweeps": sweep}, x),
        sweeps=lambda: sweep.iterations["cell0_adjoint"].sweeps,
        allowed=1e3 * tolerance,
    )


def densenet_cases(options: Options) -> list[Case]:
    """The scores of one image, with all layers at once, and with blocks of a dense layer's two convolutions."""
    blocks, tolerance = ((2, 2) if options.quick else (6, 12, 8)), 1e-2
    model, right = densenet.trained(12, blocks, options.steps(100))
    progress(f"trained a DenseNet that reads {100 * right:.0f} % of new digits")
    x = digits.load_images()[-1:, None].contiguous()
    exact = parc.compile(model, (x,), threads=options.threads)
    cases = []
    for solver, block in (("jacobi", 0), ("jacobi-gs", 2)):
        how = parc.Iteration(tolerance=tolerance, block=block)
        sweep = parc.compile(model, (x,), threads=options.threads, strategy=solver, iteration=how)
        programs = {"eager": model, "exact": exact, "sweeps": sweep}
        cases.append(
            Case(
                task=f"DenseNet, {solver}",
                setting=f"{'+'.join(map(str, blocks))} dense layers, trained, tolerance {tolerance:g}",
                steps=densenet.depth(blocks),
                depth=block or 1,
                paper="98/~32 = 3.1x",
                programs={name: _call(program, x) for name, program in programs.items()},
                sweeps=lambda sweep=sweep: _sweeps(sweep),  # type: ignore[misc]
                allowed=10 * tolerance,
            )
        )
    return cases


def made_case(options: Options, size: int, images: int, paper: str) -> Case:
    """Images of black and white pixels, sampled with given noise."""
    size = 4 if options.quick else size
    model, loss = made.trained(size, options.steps(1000))
    progress(f"trained a MADE of {size**2} pixels: {loss:.1f} nats an image")
    noise = torch.rand(images, size**2)
    return _sampling(options, "MADE", f"{images} x {size**2} pixels, trained", paper, made.Sampler(model), (noise,))


def pixelcnn_case(options: Options, images: int) -> Case:
    """Images of 17 shades, sampled with given noise."""
    width, layers = (8, 1) if options.quick else (16, 2)
    model, loss = pixelcnn.trained(width, layers, options.steps(200))
    progress(f"trained a PixelCNN++: {loss:.2f} nats a pixel")
    step, noise = pixelcnn.Sampler(model).eval(), pixelcnn.draw_noise(images, digits.SIZE)
    grey = torch.zeros_like(noise[-1])
    waves = parc.fixed_point(step, (grey, *noise), strategy="wavefront", threads=options.threads)
    setting = f"{images} x {digits.SIZE**2} pixels, {layers} layers, trained; exact: {pixelcnn.span(waves)} waves"
    return _sampling(options, "PixelCNN++", setting, "784/~130 = 6x", step, noise, exact=_call(waves, grey, *noise))


def decoding_cases(options: Options) -> list[Case]:
    """What comes next at some places of a text: from a blank window, a table's guess, and guesses made anew."""
    text, alphabet = decoding.read(Path(decoding.__file__).parents[1] / "LICENSE")
    model, loss = decoding.trained(text, alphabet, options.steps(1200))
    progress(f"trained a transformer: {loss:.2f} nats a character")
    step, table = decoding.Decoder(model).eval(), decoding.Table(text)
    places = [text[i : i + decoding.CONTEXT] for i in range(1000, 7000, 1000)]
    contexts = {known: decoding.encode(known, alphabet) for known in places}
    blank = torch.zeros(1, decoding.WINDOW, dtype=torch.long)
    compiled = parc.compile(step, (blank, contexts[places[0]]), threads=options.threads)
    sweep = parc.fixed_point(step, (blank, contexts[places[0]]), threads=options.threads)

    def in_order(program: nn.Module, known: str) -> tuple[Tensor, int]:
        return one_by_one(lambda window: program(window, contexts[known]), blank), decoding.WINDOW

    def from_blank(known: str) -> tuple[Tensor, int]:
        return sweep(blank, contexts[known]), _sweeps(sweep)

    def from_guess(known: str) -> tuple[Tensor, int]:
        guess = decoding.encode(table.guess(known, decoding.WINDOW), alphabet)
        return sweep(guess, contexts[known]), _sweeps(sweep)

    def anew(known: str) -> tuple[Tensor, int]:
        found, runs = decoding.renewed(lambda window: compiled(window, contexts[known]), table, known, alphabet)
        return decoding.encode(found, alphabet), runs

    def everywhere(decode: Callable[[str], tuple[Tensor, int]]) -> Compute:
        return lambda: torch.cat([decode(known)[0] for known in places])

    return [
        Case(
            task="Decoding",
            setting=f"{len(places)} x {decoding.WINDOW} characters from {name}",
            steps=len(places) * decoding.WINDOW,
            paper=paper,
            programs={
                "eager": everywhere(partial(in_order, step)),
                "exact": everywhere(partial(in_order, compiled)),
                "sweeps": everywhere(decode),
            },
            sweeps=lambda decode=decode: sum(decode(known)[1] for known in places),  # type: ignore[misc]
        )
        for name, decode, paper in (
            ("a blank", from_blank, "1.05x (CLLM)"),
            ("a guess", from_guess, ""),
            ("guesses anew", anew, ""),
        )
    ]


def g2p_case(options: Options) -> Case:
    """The phonemes of a word, of which each is chosen from those before it."""
    model = g2p.Pronouncer.trained()
    letters = g2p.encode(g2p.package(), "wavefront")
    how = parc.Iteration(tolerance=1e-4)
    exact = parc.compile(model, (letters,), threads=options.threads)
    sweep = parc.compile(model, (letters,), threads=options.threads, strategy="jacobi", iteration=how)
    programs = {"eager": model, "exact": exact, "sweeps": sweep}
    return Case(
        task="g2p decoder",
        setting="GRU, its own weights, tolerance 0.0001",
        steps=g2p.STEPS,
        paper="",
        programs={name: _call(program, letters) for name, program in programs.items()},
        sweeps=lambda: max(iterations.sweeps for iterations in sweep.iterations.values()),
    )


def _sampling(
    options: Options,
    task: str,
    setting: str,
    paper: str,
    step: nn.Module,
    given: Sequence[Tensor],
    exact: Compute | None = None,
) -> Case:
    """A fixed point x = step(x, *given), beside running the step once for each element of a row of x.

    exact: parc's exact program, where it has a better one than the compiled step, run so often.
    """
    step = step.eval()
    x = torch.zeros_like(given[-1])

    def each(program: nn.Module) -> Compute:
        return lambda: one_by_one(lambda y: program(y.view_as(x), *given).flatten(1), x.flatten(1)).view_as(x)

    exact = exact or each(parc.compile(step, (x, *given), threads=options.threads))
    sweep = parc.fixed_point(step, (x, *given), threads=options.threads)
    return Case(
        task=task,
        setting=setting,
        steps=x[0].numel(),
        paper=paper,
        programs={"eager": each(step), "exact": exact, "sweeps": _call(sweep, x, *given)},
        sweeps=lambda: _sweeps(sweep),
    )


def _gradients(programs: Mapping[str, nn.Module], x: Tensor) -> dict[str, Compute]:
    return {n: lambda p=p: rnn_gradients.gradients(p, x) for n, p in programs.items()}  # type: ignore[misc]


def _call(program: nn.Module, *inputs: Tensor) -> Compute:
    def call() -> object:
        with torch.no_grad():
            return program(*inputs)

    return call


def _sweeps(program: parc.Module) -> int:
    (iterations,) = program.iterations.values()
    return iterations.sweeps
