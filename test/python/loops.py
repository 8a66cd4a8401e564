"""Loops in the ways that people write them, each a small program: what raising has to understand, and what it refuses.

A program is a function of its weights and its inputs.  `x` is [T, B, H] unless the program says otherwise.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

H = 8
Function = Callable[..., object]


@dataclass(frozen=True)
class Program:
    """A function, the shapes of its weights (or modules), and of its inputs: `"2*T B 8"`, floats unless `"T B int"`."""

    function: Function
    weights: dict[str, object]
    inputs: tuple[str, ...]

    def module(self) -> nn.Module:
        return _Module(self).eval()

    def arguments(self, sizes: dict[str, int]) -> list[Tensor]:
        """Random inputs for these values of the symbols."""
        result = []
        for text in self.inputs:
            words = text.split()
            shape = [math.prod(sizes[f] if f in sizes else int(f) for f in w.split("*")) for w in words if w != "int"]
            result.append(torch.randint(0, 5, shape) if words[-1:] == ["int"] else torch.randn(shape))
        return result

    def dynamic_shapes(self) -> list[dict[int, object]]:
        """The symbols of the inputs' dimensions, as `parc.compile` takes them."""
        result = []
        for text in self.inputs:
            dims: dict[int, object] = {}
            for i, word in enumerate(w for w in text.split() if w != "int"):
                *scale, name = word.split("*")
                if not name.isdigit():
                    dims[i] = int(scale[0]) * torch.export.Dim(name) if scale else name
            result.append(dims)
        return result

    def symbols(self) -> list[str]:
        return list(dict.fromkeys(f for text in self.inputs for w in text.split() for f in w.split("*") if f.isupper()))


class _Module(nn.Module):
    def __init__(self, program: Program) -> None:
        super().__init__()
        self.function = program.function
        for name, value in program.weights.items():
            if isinstance(value, tuple):
                value = nn.Parameter(torch.randn(*value) / value[0] ** 0.5)
            elif isinstance(value, list):
                value = nn.ParameterList([nn.Parameter(torch.randn(*s) / s[0] ** 0.5) for s in value])
            elif not isinstance(value, nn.Module):
                value = value()  # type: ignore[operator]
            setattr(self, name, value)

    def forward(self, *inputs: Tensor) -> object:
        return self.function(self, *inputs)


REGULAR: dict[str, Program] = {}
REFUSED: dict[str, tuple[Program, str]] = {}
_X = ("T B 8",)
_W, _U, _V = {"w": (H, H)}, {"u": (H, H)}, {"v": (H, H)}
_CELL = _W | _U
Net = SimpleNamespace


def regular(*inputs: str, **weights: object) -> Callable[[Function], Function]:
    """Register a program that is compiled."""

    def register(function: Function) -> Function:
        REGULAR[function.__name__] = Program(function, weights, inputs or _X)
        return function

    return register


def refused(message: str, *inputs: str, **weights: object) -> Callable[[Function], Function]:
    """Register a program that is refused with a message that contains `message`."""

    def register(function: Function) -> Function:
        REFUSED[function.__name__] = Program(function, weights, inputs or _X), message
        return function

    return register


def _zeros(x: Tensor) -> Tensor:
    return x.new_zeros(x.shape[1], H)


# -- layers ----------------------------------------------------------------------------------------------------------


@regular(**_CELL)
def tied_layers_time_outer(p: Net, x: Tensor) -> Tensor:
    """Three layers with one weight; all first steps are the same operation."""
    h = [_zeros(x)] * 3
    ys = []
    for xt in x:
        y = xt
        for k in range(3):
            h[k] = y = torch.tanh(y @ p.w + h[k] @ p.u)
        ys.append(y)
    return torch.stack(ys)


@regular(**_CELL)
def tied_layers_layer_outer(p: Net, x: Tensor) -> Tensor:
    for _ in range(3):
        h, ys = _zeros(x), []
        for xt in x:
            h = torch.tanh(xt @ p.w + h @ p.u)
            ys.append(h)
        x = torch.stack(ys)
    return x


@regular(w=[(H, H)] * 3, u=[(H, H)] * 3)
def residual_stack(p: Net, x: Tensor) -> Tensor:
    h = [_zeros(x)] * 3
    ys = []
    for xt in x:
        y = xt
        for k in range(3):
            h[k] = torch.tanh(y @ p.w[k] + h[k] @ p.u[k])
            y = y + h[k]
        ys.append(y)
    return torch.stack(ys)


@regular(w=[(H, H)] * 3, u=[(H, H)] * 3)
def skip_connections(p: Net, x: Tensor) -> Tensor:
    a = b = c = _zeros(x)
    ys = []
    for xt in x:
        a = torch.tanh(xt @ p.w[0] + a @ p.u[0])
        b = torch.tanh(a @ p.w[1] + b @ p.u[1])
        c = torch.tanh(b @ p.w[2] + c @ p.u[2] + a + xt)
        ys.append(torch.cat([a, c], 1))
    return torch.stack(ys)


@regular(a=lambda: nn.LSTM(H, 12), b=lambda: nn.GRU(12, 5), c=lambda: nn.Linear(5, 3))
def layers_of_other_sizes(p: Net, x: Tensor) -> Tensor:
    return p.c(p.b(p.a(x)[0])[0])


@regular(rnn=lambda: nn.GRU(H, H, 2, bidirectional=True))
def bidirectional_stack(p: Net, x: Tensor) -> Tensor:
    return p.rnn(x)[0]


@regular(**_CELL)
def bidirectional_tied(p: Net, x: Tensor) -> Tensor:
    h, ahead, back = _zeros(x), [], []
    for xt in x:
        h = torch.tanh(xt @ p.w + h @ p.u)
        ahead.append(h)
    h = _zeros(x)
    for t in reversed(range(x.shape[0])):
        h = torch.tanh(x[t] @ p.w + h @ p.u)
        back.insert(0, h)
    return torch.cat([torch.stack(ahead), torch.stack(back)], -1)


# -- states ----------------------------------------------------------------------------------------------------------


@regular()
def moving_average(p: Net, x: Tensor) -> Tensor:
    h, ys = _zeros(x), []
    for xt in x:
        h = 0.9 * h + 0.1 * xt
        ys.append(h)
    return torch.stack(ys)


@regular()
def starts_from_the_first_input(p: Net, x: Tensor) -> Tensor:
    h = x[0]
    ys = [h]
    for t in range(1, x.shape[0]):
        h = 0.9 * h + 0.1 * x[t]
        ys.append(h)
    return torch.stack(ys)


@regular(w=[(H, H)] * 3, u=[(H, H)] * 3, start=(H,))
def learned_initial_state(p: Net, x: Tensor) -> Tensor:
    """The initial state is a parameter that all layers use, as they use weights."""
    h = [p.start.expand(x.shape[1], H)] * 3
    ys = []
    for xt in x:
        y = xt
        for k in range(3):
            h[k] = y = torch.tanh(y @ p.w[k] + h[k] @ p.u[k])
        ys.append(y)
    return torch.stack(ys)


@regular(**_CELL)
def first_input_is_the_state_too(p: Net, x: Tensor) -> Tensor:
    h, ys = x[0], []
    for xt in x:
        h = torch.tanh(xt @ p.w + h @ p.u + xt + h)
        ys.append(h)
    return torch.stack(ys)


@regular("T 8", **_CELL)
def without_batch(p: Net, x: Tensor) -> Tensor:
    h, ys = x.new_zeros(H), []
    for xt in x:
        h = torch.tanh(xt @ p.w + h @ p.u)
        ys.append(h)
    return torch.stack(ys)


@regular("T", a=(1,), b=(1,))
def scalar_state(p: Net, x: Tensor) -> Tensor:
    h, ys = x.new_zeros(()), []
    for xt in x:
        h = torch.tanh(xt * p.a[0] + h * p.b[0])
        ys.append(h)
    return torch.stack(ys)


@regular(**_CELL, **_V)
def three_steps_back(p: Net, x: Tensor) -> Tensor:
    h = [_zeros(x)] * 3
    for xt in x:
        h.append(torch.tanh(xt @ p.w + h[-1] @ p.u + h[-3] @ p.v))
    return torch.stack(h[3:])


@regular(**_CELL)
def last_two_states(p: Net, x: Tensor) -> tuple[Tensor, Tensor]:
    h = before = _zeros(x)
    for xt in x:
        before = h
        h = torch.tanh(xt @ p.w + h @ p.u)
    return h, before


@regular(**_CELL)
def all_states_along_another_dimension(p: Net, x: Tensor) -> Tensor:
    hs = [_zeros(x)]
    for xt in x:
        hs.append(torch.tanh(xt @ p.w + hs[-1] @ p.u))
    return torch.stack(hs, 1)


@regular(**_CELL)
def state_in_the_result_buffer(p: Net, x: Tensor) -> Tensor:
    out = torch.zeros(x.shape[0] + 1, x.shape[1], H)
    for t in range(x.shape[0]):
        out[t + 1] = torch.tanh(x[t] @ p.w + out[t] @ p.u)
    return out


@regular(w=[(H, H)] * 2, u=[(H, H)] * 2)
def states_of_all_layers_in_one_tensor(p: Net, x: Tensor) -> tuple[Tensor, Tensor]:
    h, ys = torch.zeros(2, x.shape[1], H), []
    for xt in x:
        y = xt
        for k in range(2):
            h[k] = torch.tanh(y @ p.w[k] + h[k] @ p.u[k])
            y = h[k].clone()
        ys.append(y)
    return torch.stack(ys), h


@regular(**_CELL)
def both_directions_stacked(p: Net, x: Tensor) -> tuple[Tensor, Tensor]:
    h, ys = _zeros(x), []
    for t in reversed(range(x.shape[0])):
        h = torch.tanh(x[t] @ p.w + h @ p.u)
        ys.append(h)
    return torch.stack(ys), torch.stack(ys[::-1])


# -- time ------------------------------------------------------------------------------------------------------------


@regular(**_CELL)
def reads_the_input_before(p: Net, x: Tensor) -> Tensor:
    h, ys = x[0], []
    for t in range(1, x.shape[0]):
        h = torch.tanh(x[t] @ p.w + h @ p.u + x[t - 1])
        ys.append(h)
    return torch.stack([x[0], *ys])


@regular(w=(3 * H, H), u=(H, H))
def window_of_three(p: Net, x: Tensor) -> Tensor:
    h, ys = _zeros(x), []
    padded = F.pad(x, (0, 0, 0, 0, 1, 1))
    for t in range(x.shape[0]):
        h = torch.tanh(torch.cat([padded[t], padded[t + 1], padded[t + 2]], 1) @ p.w + h @ p.u)
        ys.append(h)
    return torch.stack(ys)


@regular("2*T B 8", w=(H, H), u=(H, H), w2=(2 * H, H), u2=(H, H))
def pyramid(p: Net, x: Tensor) -> Tensor:
    h, ys = _zeros(x), []
    for xt in x:
        h = torch.tanh(xt @ p.w + h @ p.u)
        ys.append(h)
    g, zs = _zeros(x), []
    for t in range(0, len(ys), 2):
        g = torch.tanh(torch.cat([ys[t], ys[t + 1]], 1) @ p.w2 + g @ p.u2)
        zs.append(g)
    return torch.stack(zs)


@regular("2*T B 8", w=[(H, H)] * 3, u=[(H, H)] * 2)
def slow_state_every_second_step(p: Net, x: Tensor) -> Tensor:
    h = g = _zeros(x)
    ys = []
    for t in range(x.shape[0]):
        h = torch.tanh(x[t] @ p.w[0] + h @ p.u[0] + g @ p.w[1])
        ys.append(h)
        if t % 2:
            g = torch.tanh(h @ p.w[2] + g @ p.u[1])
    return torch.stack(ys)


@regular(**_CELL)
def several_updates_a_step(p: Net, x: Tensor) -> Tensor:
    h, ys = _zeros(x), []
    for xt in x:
        for _ in range(3):
            h = torch.tanh(xt @ p.w + h @ p.u)
        ys.append(h)
    return torch.stack(ys)


@regular(w=(H, H), u=(H, H), w2=(H, H), u2=(H, H))
def inner_loop_over_the_whole_input(p: Net, x: Tensor) -> Tensor:
    h, ys = _zeros(x), []
    for _ in range(x.shape[0]):
        g = _zeros(x)
        for xt in x:
            g = torch.tanh(xt @ p.w2 + g @ p.u2)
        h = torch.tanh(g @ p.w + h @ p.u)
        ys.append(h)
    return torch.stack(ys)


@regular()
def running_mean(p: Net, x: Tensor) -> Tensor:
    h, ys = _zeros(x), []
    for t, xt in enumerate(x):
        h = h + (xt - h) / (t + 1)
        ys.append(h)
    return torch.stack(ys)


@regular(**_CELL)
def step_number_in_the_cell(p: Net, x: Tensor) -> Tensor:
    h, ys = _zeros(x), []
    for t, xt in enumerate(x):
        h = torch.tanh(xt @ p.w + h @ p.u + 0.5 * t)
        ys.append(h)
    return torch.stack(ys)


@regular(**_CELL)
def position_table(p: Net, x: Tensor) -> Tensor:
    h, ys = _zeros(x), []
    positions = torch.sin(torch.arange(x.shape[0]))
    for t, xt in enumerate(x):
        h = torch.tanh(xt @ p.w + h @ p.u + positions[t])
        ys.append(h)
    return torch.stack(ys)


@regular(**_CELL)
def counter_in_the_state(p: Net, x: Tensor) -> tuple[Tensor, Tensor]:
    h, n, ys = _zeros(x), torch.zeros((), dtype=torch.int64), []
    for xt in x:
        h = torch.tanh(xt @ p.w + h @ p.u) / (n + 1)
        n = n + 1
        ys.append(h)
    return torch.stack(ys), n


@regular("T B 8", "B int", **_CELL)
def masked_by_length(p: Net, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    h, ys = _zeros(x), []
    for t, xt in enumerate(x):
        h = torch.where((t < lengths)[:, None], torch.tanh(xt @ p.w + h @ p.u), h)
        ys.append(h)
    return torch.stack(ys), h


@regular(**_CELL, **_V)
def special_last_step(p: Net, x: Tensor) -> Tensor:
    h, ys = _zeros(x), []
    for t, xt in enumerate(x):
        h = torch.tanh(xt @ p.w + h @ p.u)
        ys.append(h @ p.v if t == x.shape[0] - 1 else h)
    return torch.stack(ys)


# -- cells -----------------------------------------------------------------------------------------------------------


@regular(w=(H, 4 * H), u=(H, 4 * H), norm=lambda: nn.LayerNorm(4 * H), out=lambda: nn.LayerNorm(H))
def layer_norm_lstm(p: Net, x: Tensor) -> Tensor:
    h = c = _zeros(x)
    ys = []
    for xt in x:
        i, f, o, g = p.norm(xt @ p.w + h @ p.u).chunk(4, 1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(p.out(c))
        ys.append(h)
    return torch.stack(ys)


@regular("T B 3 5 5", conv=lambda: nn.Conv2d(7, 16, 3, padding=1))
def conv_lstm(p: Net, x: Tensor) -> tuple[Tensor, Tensor]:
    h = c = x.new_zeros(x.shape[1], 4, 5, 5)
    ys = []
    for xt in x:
        i, f, o, g = p.conv(torch.cat([xt, h], 1)).chunk(4, 1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        ys.append(h)
    return torch.stack(ys), c


@regular(w=(H, 3 * H), i=(H, 1), f=(H, 1))
def matrix_memory(p: Net, x: Tensor) -> Tensor:
    """The mLSTM of xLSTM: the state is a matrix, updated by outer products."""
    memory, norm, ys = x.new_zeros(x.shape[1], H, H), _zeros(x), []
    for xt in x:
        q, k, v = (xt @ p.w).chunk(3, 1)
        i, f = torch.exp(xt @ p.i), torch.sigmoid(xt @ p.f)
        memory = f[:, :, None] * memory + i[:, :, None] * v[:, :, None] * k[:, None, :]
        norm = f * norm + i * k
        scale = torch.maximum((norm * q).sum(1, keepdim=True).abs(), torch.ones(1))
        ys.append((memory @ q[:, :, None])[:, :, 0] / scale)
    return torch.stack(ys)


@regular(q=(H, H), k=(H, H), v=(H, H))
def linear_attention(p: Net, x: Tensor) -> Tensor:
    s, ys = x.new_zeros(x.shape[1], H, H), []
    q, k, v = x @ p.q, x @ p.k, x @ p.v
    for t in range(x.shape[0]):
        s = s + k[t].unsqueeze(2) * v[t].unsqueeze(1)
        ys.append(torch.einsum("bk,bkv->bv", q[t], s))
    return torch.stack(ys)


@regular("B T 8", a=(H, 4), d=(H, H), b=(H, 4), c=(H, 4))
def selective_scan(p: Net, x: Tensor) -> Tensor:
    """Mamba's reference scan."""
    delta = F.softplus(x @ p.d)
    decay = torch.exp(torch.einsum("btd,dn->btdn", delta, -torch.exp(p.a)))
    drive = torch.einsum("btd,btn,btd->btdn", delta, x @ p.b, x)
    out = x @ p.c
    h, ys = x.new_zeros(x.shape[0], H, 4), []
    for t in range(x.shape[1]):
        h = decay[:, t] * h + drive[:, t]
        ys.append(torch.einsum("bdn,bn->bd", h, out[:, t]))
    return torch.stack(ys, 1)


@regular(w=(H, 3 * H), f=(H,), r=(H,))
def simple_recurrent_unit(p: Net, x: Tensor) -> Tensor:
    a, f, r = (x @ p.w).chunk(3, -1)
    f, r = torch.sigmoid(f + p.f), torch.sigmoid(r + p.r)
    c, ys = torch.zeros_like(x[0]), []
    for t in range(x.shape[0]):
        c = f[t] * c + (1 - f[t]) * a[t]
        ys.append(r[t] * torch.tanh(c) + (1 - r[t]) * x[t])
    return torch.stack(ys)


# -- whole programs --------------------------------------------------------------------------------------------------


@regular("T B 8", "B 8", w=(H, H), u=(H, H), v=(H, 5), embed=lambda: nn.Embedding(5, H))
def feeds_back_the_argmax(p: Net, x: Tensor, h: Tensor) -> Tensor:
    token, ys = torch.zeros(h.shape[0], dtype=torch.int64), []
    for xt in x:
        h = torch.tanh(p.embed(token) @ p.w + h @ p.u + xt)
        token = (h @ p.v).argmax(-1)
        ys.append(token)
    return torch.stack(ys)


@regular("T B 8", "S B 8", enc=lambda: nn.GRU(H, H), dec=lambda: nn.GRUCell(2 * H, H), out=lambda: nn.Linear(H, 5))
def attention_decoder(p: Net, x: Tensor, y: Tensor) -> Tensor:
    """A decoder that starts from the encoder's last state and reads all of its states in every step."""
    memory, last = p.enc(x)
    h, ys = last[0], []
    for yt in y:
        weights = torch.softmax((memory * h).sum(-1), 0)
        h = p.dec(torch.cat([yt, (weights[..., None] * memory).sum(0)], 1), h)
        ys.append(p.out(h))
    return torch.stack(ys)


@regular(attention=lambda: nn.MultiheadAttention(H, 2), rnn=lambda: nn.GRU(H, H))
def attention_in_front(p: Net, x: Tensor) -> Tensor:
    return p.rnn(p.attention(x, x, x)[0])[0]


@regular("T B int", embed=lambda: nn.Embedding(5, H), cell=lambda: nn.GRUCell(H, H), out=lambda: nn.Linear(H, 5))
def language_model(p: Net, tokens: Tensor) -> Tensor:
    h, ys = torch.zeros(tokens.shape[1], H), []
    for token in tokens:
        h = p.cell(p.embed(token), h)
        ys.append(p.out(h).log_softmax(-1))
    return torch.stack(ys)


# -- what is refused -------------------------------------------------------------------------------------------------


@refused("does not come from the same place in every step", **_CELL)
def attends_to_all_earlier_states(p: Net, x: Tensor) -> Tensor:
    hs = [_zeros(x)]
    for xt in x:
        memory = torch.stack(hs)
        weights = torch.softmax((memory * hs[-1]).sum(-1), 0)
        hs.append(torch.tanh(xt @ p.w + (weights[..., None] * memory).sum(0) @ p.u))
    return torch.stack(hs[1:])


@refused("does not come from the same place in every step", **_CELL)
def sums_all_earlier_inputs(p: Net, x: Tensor) -> Tensor:
    h, ys = _zeros(x), []
    for t in range(x.shape[0]):
        h = torch.tanh(x[: t + 1].sum(0) @ p.w + h @ p.u)
        ys.append(h)
    return torch.stack(ys)


@refused("compute it as a tensor for all steps", **_CELL)
def python_sine_of_the_step(p: Net, x: Tensor) -> Tensor:
    h, ys = _zeros(x), []
    for t, xt in enumerate(x):
        h = torch.tanh(xt @ p.w + h @ p.u + math.sin(t))
        ys.append(h)
    return torch.stack(ys)


@refused("comes from another place than in the steps before", **_CELL, **_V)
def special_middle_step(p: Net, x: Tensor) -> Tensor:
    h, ys = _zeros(x), []
    for t, xt in enumerate(x):
        h = torch.tanh(xt @ p.w + h @ p.u)
        if t == 2:
            h = h @ p.v
        ys.append(h)
    return torch.stack(ys)


@refused("the loop is not regular", **_CELL, **_V)
def slow_state_of_any_length(p: Net, x: Tensor) -> Tensor:
    h = g = _zeros(x)
    ys = []
    for t, xt in enumerate(x):
        h = torch.tanh(xt @ p.w + h @ p.u + g)
        if t % 2:
            g = torch.tanh(h @ p.v)
        ys.append(h)
    return torch.stack(ys)


@refused("a loop of dynamic length inside a loop of another dynamic length".capitalize(), "T S 8", **_CELL, **_V)
def two_dimensional(p: Net, x: Tensor) -> Tensor:
    above = [x.new_zeros(H)] * x.shape[1]
    rows = []
    for t in range(x.shape[0]):
        left, row = x.new_zeros(H), []
        for s in range(x.shape[1]):
            left = torch.tanh(x[t, s] @ p.w + left @ p.u + above[s] @ p.v)
            row.append(left)
        above = row
        rows.append(torch.stack(row))
    return torch.stack(rows)
