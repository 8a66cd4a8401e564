"""The programs that parc is timed beside on a GPU."""

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from common import TimeLimitError, time_limit
from gpu_case import PRECISIONS, Call, Case
from torch import Tensor, nn
from torch.nn import functional


class UnavailableError(Exception):
    """A peer that is not there, or does not run this case."""


Peer = Callable[[Case, float], Call]
"""Makes a call for a case in at most so many seconds; whatever it raises, the case goes on without the peer."""

LIBRARY, EAGER, COMPILED, REPLAYED = "nn.LSTM/GRU", "eager", "torch.compile", "reduce-overhead"


def eager(case: Case, limit: float) -> Call:
    """The model as it is: on a GPU, nn.LSTM and nn.GRU are cuDNN's kernels."""
    model = case.peer_model()
    return case.call(model, model)


def cuda_graph(case: Case, limit: float) -> Call:
    """The kernels of one call of the model, launched together from then on."""
    _need_gpu(case)
    call = eager(case, limit)
    side = torch.cuda.Stream(case.device)
    side.wait_stream(torch.cuda.current_stream(case.device))
    with torch.cuda.stream(side):
        for _ in range(3):
            call()
    torch.cuda.current_stream(case.device).wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = call()

    def replay() -> Sequence[Tensor]:
        graph.replay()
        return results

    return replay


def compiled(case: Case, limit: float) -> Call:
    """`torch.compile` as it is."""
    return _compile(case, limit, None)


def compiled_replayed(case: Case, limit: float) -> Call:
    """`torch.compile` with mode "reduce-overhead": CUDA graphs of its kernels."""
    _need_gpu(case)
    return _compile(case, limit, "reduce-overhead")


def triton_kernel(case: Case, limit: float) -> Call:
    """A persistent kernel written by hand (triton_lstm.py), forward only."""
    _need_gpu(case)
    if case.training:
        raise UnavailableError("the kernel has no backward pass")
    from triton_lstm import TritonLstm  # only now: Triton comes with PyTorch for CUDA

    assert isinstance(case.model, nn.LSTM)
    rounding = "ieee" if case.precision == "f32" else "tf32"
    multiprocessors = torch.cuda.get_device_properties(case.device).multi_processor_count
    return case.call(TritonLstm(case.model, PRECISIONS[case.precision].dtype, rounding, multiprocessors))


def flash_rnn(case: Case, limit: float) -> Call:
    """FlashRNN's fused kernels (arXiv 2412.07752), where `flashrnn` is installed; it builds them by nvcc."""
    _need_gpu(case)
    if case.precision == "f32":
        raise UnavailableError("its products of float32 are tf32")
    model = case.peer_model()
    assert isinstance(model, nn.LSTM)
    function: Callable[..., Any] = importlib.import_module("flashrnn").flashrnn
    dtype = "bfloat16" if case.precision == "bf16" else "float32"

    def stack(x: Tensor) -> Tensor:
        # Its layouts: inputs [B, T, gate, head, unit], weights [gate, head, unit, unit], states [2, B, T, head, unit].
        y = x.transpose(0, 1)
        for i in range(model.num_layers):
            gates = functional.linear(y, getattr(model, f"weight_ih_l{i}")).unflatten(2, (4, 1, -1))
            weights = getattr(model, f"weight_hh_l{i}").unflatten(0, (4, 1, -1))
            bias = (getattr(model, f"bias_ih_l{i}") + getattr(model, f"bias_hh_l{i}")).unflatten(0, (4, 1, -1))
            states, _ = function(gates, weights, bias, function="lstm", backend="cuda_fused", dtype=dtype)
            y = states[0].squeeze(2)
        return y.transpose(0, 1)

    return case.call(stack, model)


PEERS: Mapping[str, Peer] = {
    LIBRARY: eager,
    EAGER: eager,
    COMPILED: compiled,
    REPLAYED: compiled_replayed,
    "CUDA graph": cuda_graph,
    "Triton": triton_kernel,
    "FlashRNN": flash_rnn,
}


def peers_of(model: str, *, with_compile: bool) -> Sequence[str]:
    """The peers of a stack; `with_compile` adds torch.compile to those of loops, which it unrolls."""
    if model == "LSTM":
        return LIBRARY, "CUDA graph", "Triton", "FlashRNN"
    if model == "GRU":
        return LIBRARY, "CUDA graph"
    return (EAGER, "CUDA graph", COMPILED, REPLAYED) if with_compile else (EAGER, "CUDA graph")


def _need_gpu(case: Case) -> None:
    if case.device.type != "cuda":
        raise UnavailableError("it needs a GPU")


def _compile(case: Case, limit: float, mode: str | None) -> Call:
    torch.compiler.reset()
    model = case.peer_model()
    call = case.call(torch.compile(model, fullgraph=True, dynamic=False, mode=mode), model)

    def marked() -> Sequence[Tensor]:
        # Results of the call before may be overwritten.
        torch.compiler.cudagraph_mark_step_begin()
        return call()

    try:
        with time_limit(limit):
            for _ in range(3):  # compiles, captures, replays
                marked()
    except TimeLimitError:
        raise UnavailableError(f"not compiled after {limit:g} s") from None
    return marked if mode else call
