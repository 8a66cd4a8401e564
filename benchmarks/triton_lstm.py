"""A persistent LSTM kernel in Triton, as a peer; the import fails where Triton is not installed.

One launch per layer: each program keeps the recurrent weights of a few units on chip for all steps, and all programs
wait for each other after every step.  The products with the layer's inputs are one large product of torch before it.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"
# Triton has no types, and the parameters of a kernel are no Python values.

import torch
import triton
import triton.language as tl
from torch import Tensor, nn

LEAST_TILE = 16
"""The least sizes of a product in Triton."""
LARGEST_BATCH_TILE = 64


@triton.jit
def wait_for_all(arrivals, count):
    """Return when `arrivals`, which each program of the grid raises by one, has come to `count`."""
    tl.debug_barrier()  # all threads of the program have written
    tl.atomic_add(arrivals, 1, sem="release", scope="gpu")
    while tl.atomic_add(arrivals, 0, sem="acquire", scope="gpu") < count:
        pass
    tl.debug_barrier()


@triton.jit
def barriers_kernel(arrivals, count):
    """So many barriers of the whole grid, and nothing else."""
    for i in range(count):
        wait_for_all(arrivals, (i + 1) * tl.num_programs(0))


@triton.jit
def steps_kernel(
    input_gates,
    weights,
    outputs,
    memory,
    arrivals,
    first,
    last,
    batch,
    hidden,
    depth: tl.constexpr,
    units: tl.constexpr,
    rows: tl.constexpr,
    rounding: tl.constexpr,
):
    """Steps `first` to `last` of one layer: program (i, j) computes tile i of the units for tile j of the batch.

    input_gates: [T, B, H, 4] of the gates i, f, g, o; weights: [H, H, 4]; outputs: [T, B, H]; memory: f32 [B, H].
    depth: H, or the next power of two; `rounding` is that of the products' factors if they are f32.
    """
    row = tl.program_id(1) * rows + tl.arange(0, rows)
    unit = tl.program_id(0) * units + tl.arange(0, units)
    column = tl.program_id(0) * units * 4 + tl.arange(0, units * 4)
    k = tl.arange(0, depth)
    known_row, known_k = (row < batch)[:, None], k < hidden
    known_column = (column < 4 * hidden)[None, :]
    known_state = known_row & (unit < hidden)[None, :]
    state = row[:, None] * hidden + unit[None, :]
    w = tl.load(weights + k[:, None] * (4 * hidden) + column[None, :], mask=known_k[:, None] & known_column, other=0.0)
    c = tl.load(memory + state, mask=known_state, other=0.0)
    for t in range(first, last):
        gates = tl.load(
            input_gates + (t * batch + row)[:, None] * (4 * hidden) + column[None, :],
            mask=known_row & known_column,
            other=0.0,
        ).to(tl.float32)
        if t > 0:
            h = tl.load(
                outputs + ((t - 1) * batch + row)[:, None] * hidden + k[None, :],
                mask=known_row & known_k[None, :],
                other=0.0,
                cache_modifier=".cg",  # other programs wrote it: an SM's own cache does not know
            )
            gates += tl.dot(h, w, input_precision=rounding)
        even, odd = tl.split(tl.reshape(gates, (rows, units, 2, 2)))
        i, g = tl.split(even)
        f, o = tl.split(odd)
        c = tl.sigmoid(f) * c + tl.sigmoid(i) * (2 * tl.sigmoid(2 * g) - 1)
        h_new = tl.sigmoid(o) * (2 * tl.sigmoid(2 * c) - 1)
        tl.store(outputs + t * batch * hidden + state, h_new.to(outputs.dtype.element_ty), mask=known_state)
        if t + 1 < last:
            wait_for_all(arrivals, (t + 1 - first) * tl.num_programs(0) * tl.num_programs(1))
    tl.store(memory + state, c, mask=known_state)


class TritonLstm:
    """The stack of an nn.LSTM, forward; input and output `[T, B, H]`, for as many features as hidden units.

    The kernel needs all programs at once on the GPU: it is launched with at most `multiprocessors` of them.
    """

    def __init__(self, model: nn.LSTM, dtype: torch.dtype, rounding: str, multiprocessors: int) -> None:
        """dtype: of weights and outputs; rounding: "ieee" or "tf32", of the factors where that is float32."""
        self.hidden, self.dtype, self.rounding = model.hidden_size, dtype, rounding
        self.multiprocessors = multiprocessors
        self.layers = [
            tuple(self._gates_last(getattr(model, f"{name}_l{i}")) for name in ("weight_ih", "weight_hh"))
            + (self._gates_last((getattr(model, f"bias_ih_l{i}") + getattr(model, f"bias_hh_l{i}"))[:, None])[0],)
            for i in range(model.num_layers)
        ]

    def __call__(self, x: Tensor, steps_per_launch: int | None = None) -> Tensor:
        """Run all layers; `steps_per_launch` None is all steps in one launch, 1 needs no programs side by side."""
        h = x.to(self.dtype)
        for input_weights, state_weights, bias in self.layers:
            gates = torch.addmm(bias, h.flatten(0, 1), input_weights).unflatten(0, h.shape[:2])
            h = self._layer(gates, state_weights, steps_per_launch)
        return h

    def _gates_last(self, parameter: Tensor) -> Tensor:
        """`[4 * H, K]` as `[K, H * 4]`: the gates of a unit next to each other."""
        return parameter.detach().unflatten(0, (4, self.hidden)).permute(2, 1, 0).flatten(1).to(self.dtype).contiguous()

    def _layer(self, gates: Tensor, state_weights: Tensor, steps_per_launch: int | None) -> Tensor:
        steps, batch, _ = gates.shape
        rows = min(LARGEST_BATCH_TILE, max(LEAST_TILE, triton.next_power_of_2(batch)))
        batch_tiles = triton.cdiv(batch, rows)
        unit_tiles = max(1, self.multiprocessors // batch_tiles)
        units = max(LEAST_TILE // 4, triton.next_power_of_2(triton.cdiv(self.hidden, unit_tiles)))
        outputs = torch.empty(steps, batch, self.hidden, dtype=self.dtype, device=gates.device)
        memory = torch.zeros(batch, self.hidden, device=gates.device)
        arrivals = torch.zeros(1, dtype=torch.int32, device=gates.device)
        stride = steps_per_launch or steps
        for first in range(0, steps, stride):
            steps_kernel[triton.cdiv(self.hidden, units), batch_tiles](
                gates,
                state_weights,
                outputs,
                memory,
                arrivals.zero_(),
                first,
                min(first + stride, steps),
                batch,
                self.hidden,
                depth=max(LEAST_TILE, triton.next_power_of_2(self.hidden)),
                units=units,
                rows=rows,
                rounding=self.rounding,
                num_warps=8 if max(self.hidden, 16 * rows) * units * 4 > 8192 else 4,
                launch_cooperative_grid=True,
            )
        return outputs


def wait_at_barriers(count: int, programs: int, device: torch.device) -> None:
    """One launch of `programs` programs that wait for each other `count` times."""
    arrivals = torch.zeros(1, dtype=torch.int32, device=device)
    barriers_kernel[(programs,)](arrivals, count, launch_cooperative_grid=True)
