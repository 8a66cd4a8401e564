"""Gradients of straight-line code, operation by operation, compiled and compared with torch.autograd."""

from collections.abc import Callable, Sequence

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from interpreter import evaluate
from torch import Tensor, nn
from torch.testing import assert_close
from torch_mlir import ir
from torch_mlir.dialects import func

from parc import dialect
from parc.autodiff.emit import is_float
from parc.autodiff.extents import Sizes
from parc.autodiff.reverse import Reverse
from parc.codegen.irtools import find_function, walk
from parc.errors import CompileError
from parc.importers.torch_import import import_torch
from parc.jit import cpu_executable
from parc.pipelines import parse_pipeline, run_pipeline, stage_steps
from parc.read_module import read_signature
from parc.runtime import Team
from parc.runtime.executable import Buffer

# The part of the stage "system" that comes before the traces become one program.
TO_LINALG = (
    "instantiate-sizes,unroll-loops,flatten-products,canonicalize,cse,linalg-fold-unit-extent-dims,canonicalize,cse"
)
Function = Callable[..., object]
NO_SHRINKING = (Phase.explicit, Phase.reuse, Phase.generate)


class Model(nn.Module):
    """A function, with the modules that it uses: `Model(lambda m, x: m.linear(x), linear=nn.Linear(3, 4))`."""

    def __init__(self, function: Function, **parts: nn.Module) -> None:
        super().__init__()
        self.function = function
        for name, part in parts.items():
            setattr(self, name, part.double())

    def forward(self, *inputs: Tensor) -> object:
        return self.function(self, *inputs)


def context() -> ir.Context:
    made = ir.Context()
    dialect.load(made)
    return made


def differentiate(main: func.FuncOp) -> list[bool]:
    """Make a function's results the gradients of its arguments, given cotangents as further arguments.

    Returns whether each floating-point argument has a gradient; the others have no result.
    """
    block = main.entry_block
    terminator = list(block.operations)[-1].operation
    leaves = [a for a in block.arguments if is_float(a.type)]
    ops = [o.operation for o in block.operations][:-1]
    with main.context, main.location, ir.InsertionPoint(terminator):
        reverse = Reverse(ops, leaves, Sizes())
        for result in terminator.operands:
            if is_float(result.type):
                reverse.seed(result, block.add_argument(result.type, main.location))
        reverse.run()
        totals = [reverse.total(leaf) for leaf in leaves]
        results = [t for t in totals if t is not None]
        func.ReturnOp(results)
        terminator.erase()
        types = ir.FunctionType.get([a.type for a in block.arguments], [r.type for r in results])
        main.attributes["function_type"] = ir.TypeAttr.get(types)
        known = list(main.arg_attrs) if "arg_attrs" in main.attributes else []
        main.arg_attrs = ir.ArrayAttr.get(known + [ir.DictAttr.get({})] * (len(block.arguments) - len(known)))
        if "res_attrs" in main.attributes:
            del main.attributes["res_attrs"]
    return [t is not None for t in totals]


def imported(model: nn.Module, inputs: Sequence[Tensor]) -> tuple[ir.Module, list[Tensor]]:
    """The linalg form of a model at the sizes of its inputs, and its parameters and buffers."""
    program = import_torch(model, inputs, {}, context(), dynamic_shapes=[{} for _ in inputs])
    run_pipeline(program.module, parse_pipeline(TO_LINALG))
    (main,) = (op for op in program.module.body.operations if isinstance(op, func.FuncOp))
    with program.module.context:
        main.attributes["sym_name"] = ir.StringAttr.get("main")
        del main.attributes["parc.trace"]
        # All arguments alike: what is computed from parameters alone is not to be moved to another function.
        main.arg_attrs = ir.ArrayAttr.get([ir.DictAttr.get({})] * len(main.arguments))
    return program.module, list(program.parameters.values())


def compiled(module: ir.Module) -> Callable[[Sequence[Tensor]], list[Tensor]]:
    """`@main` of a module of linalg operations, as a function."""
    run_pipeline(module, parse_pipeline("canonicalize,cse,name-sizes"))
    signature = read_signature(find_function(module, "main"), {}, frozenset())
    run_pipeline(module, stage_steps("llvm"))
    executable = cpu_executable(module, Team(2))

    def call(inputs: Sequence[Tensor]) -> list[Tensor]:
        sizes = signature.solve(inputs)
        results = [torch.empty(t.sizes(sizes), dtype=t.dtype) for t in signature.results]
        executable.run(sizes, [Buffer(t.data_ptr(), t.shape) for t in (*inputs, *results)])
        return results

    return call


def check(function: Function, *inputs: Tensor, tolerance: float = 1e-9, **parts: nn.Module) -> None:
    """Compare the gradients of all inputs and parameters with torch's, for random cotangents."""
    model = Model(function, **parts).eval()
    module, parameters = imported(model, inputs)
    present = iter(differentiate(find_function(module, "main")))
    leaves = [t.detach().clone().requires_grad_(t.is_floating_point()) for t in inputs]
    results = model(*leaves)
    results = [r for r in (results if isinstance(results, tuple) else (results,)) if r.is_floating_point()]
    cotangents = [torch.randn_like(r) for r in results]
    wanted = [t for t in (*leaves, *parameters) if t.requires_grad]
    expected = dict(zip(wanted, torch.autograd.grad(results, wanted, cotangents, allow_unused=True), strict=True))
    values = iter(compiled(module)([t.detach().contiguous() for t in (*leaves, *parameters, *cotangents)]))
    for leaf in (*leaves, *parameters):
        if leaf.is_floating_point() and next(present):
            got, want = next(values), expected.get(leaf, leaf)
            if leaf.requires_grad:
                want = torch.zeros_like(leaf) if want is None else want
                assert_close(got, want, rtol=tolerance, atol=tolerance, equal_nan=True)
        else:
            assert expected.get(leaf) is None or not expected[leaf].any()


def each(functions: Sequence[Function], x: Tensor, tolerance: float = 1e-9) -> None:
    """Check functions of one tensor, each with an input of its own, in one program."""
    inputs = [x.clone() for _ in functions]
    check(lambda _, *xs: tuple(f(v) for f, v in zip(functions, xs, strict=True)), *inputs, tolerance=tolerance)


def R(*shape: int) -> Tensor:  # noqa: N802
    return torch.randn(*shape, dtype=torch.float64)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


# -- elementwise -----------------------------------------------------------------------------------------------


SMOOTH = [
    *(torch.exp, torch.expm1, torch.sin, torch.cos, torch.atan, torch.sinh, torch.cosh, torch.asinh, torch.erf),
    *(torch.square, torch.neg, torch.exp2, F.mish, F.softsign, F.tanhshrink, F.selu, F.celu, torch.sigmoid, torch.tanh),
    *(F.silu, F.gelu, F.softplus, F.logsigmoid, F.elu, lambda x: x**3, lambda x: 2.0**x, lambda x: x / (x * x + 1)),
    *(lambda x: torch.atan2(x, x * x + 1), lambda x: torch.lerp(x, x * x, 0.3), lambda x: torch.logaddexp(x, 2 * x)),
]
POSITIVE = [
    *(torch.log, torch.log1p, torch.log2, torch.log10, torch.sqrt, torch.rsqrt, torch.reciprocal, torch.tan),
    *(lambda x: x**2.5, lambda x: x**x, lambda x: torch.acosh(x + 1), lambda x: torch.special.xlogy(x, x)),
    *(lambda x: torch.asin(x / 2), lambda x: torch.acos(x / 2), lambda x: torch.atanh(x / 2)),
]
KINKED = [
    *(torch.relu, F.leaky_relu, F.elu, F.selu, F.celu, torch.abs, torch.sign, torch.floor, torch.round, torch.trunc),
    *(lambda x: x.clamp(-1, 1), lambda x: x.clamp(max=2), F.hardtanh, F.relu6, F.softshrink, F.hardshrink, F.softsign),
    *(F.logsigmoid, F.softplus, lambda x: F.threshold(x, 0.1, 20.0), lambda x: torch.where(x > 0, x, 2 * x)),
    *(lambda x: torch.maximum(x, x.flip(0)), lambda x: torch.minimum(x, x.flip(0)), lambda x: x**2, lambda x: x**0),
    *(lambda x: torch.fmax(x, x.flip(0)), lambda x: torch.remainder(x, 2.3), lambda x: (x > 0).to(x.dtype) * x),
]
OVERFLOWING = [torch.sigmoid, torch.tanh, F.silu, F.gelu, F.softplus, F.logsigmoid, F.elu, F.mish, F.celu, F.selu]


def test_smooth_functions() -> None:
    each(SMOOTH, R(3, 19))
    each(POSITIVE, torch.rand(2, 5).double() + 0.1)


def test_conventions_at_kinks() -> None:
    each(KINKED, torch.tensor([0.0, -0.0, 1.0, -1.0, 2.0, -2.0, 6.0, 0.5, -0.5, 20.0, 2.3, -4.6]).double())


def test_large_arguments_do_not_overflow() -> None:
    each(OVERFLOWING, torch.tensor([100.0, -100.0, 88.0, -88.0, 30.0, -30.0, 0.0, 1.0]), tolerance=2e-5)


def test_a_branch_that_is_not_taken_gives_no_nan() -> None:
    check(lambda _, x: x.norm(dim=1), torch.tensor([[0.0, 0.0], [1.0, 2.0]]).double())
    module, _ = imported(Model(lambda _, x: torch.where(x > 0, torch.log(x), x)), [R(2)])
    differentiate(find_function(module, "main"))
    (gradient,) = compiled(module)([torch.tensor([0.0, 0.5]).double(), torch.ones(2).double()])
    assert gradient.tolist() == [1.0, 2.0]


# -- reductions and norms --------------------------------------------------------------------------------------


def test_reductions() -> None:
    functions = [
        *(lambda x: x.sum(0), lambda x: x.mean(1), lambda x: x.std(1), lambda x: x.var(0), lambda x: (x * x).sum()),
        *(lambda x: x.norm(dim=1), lambda x: x.norm(p=1, dim=0), lambda x: torch.logsumexp(x, 0)),
        *(lambda x: x.softmax(1), lambda x: x.log_softmax(0), lambda x: F.layer_norm(x, x.shape[1:])),
        *(lambda x: F.normalize(x), lambda x: x.amax(0) * x.amin(1).sum()),
    ]
    each(functions, R(4, 6))


def test_ties_and_zeros() -> None:
    x = torch.tensor([[1.0, 3.0, 3.0], [2.0, 2.0, 2.0], [0.0, 0.0, 4.0], [0.0, 5.0, 6.0]]).double()
    each([lambda x: x.amax(1), lambda x: x.amin(0), lambda x: x.prod(1), lambda x: x.prod(0)], x)
    # With its index, the maximum is one element.
    for functions in (lambda _, x: x.max(1), lambda _, x: x.min(0)):
        check(lambda m, x, f=functions: tuple(f(m, x)), x)


def test_normalisations_and_losses() -> None:
    def losses(m: Model, x: Tensor, y: Tensor, z: Tensor, target: Tensor) -> tuple[Tensor, ...]:
        return (
            *(m.layer(x), m.group(y), m.rms(y), m.batch(y)),
            *(F.cross_entropy(x, target), F.mse_loss(x, y), F.smooth_l1_loss(x, y), F.l1_loss(x, y)),
            F.binary_cross_entropy_with_logits(z, y.sigmoid()),
        )

    check(
        losses,
        *(R(4, 6), R(4, 6), torch.zeros(4, 6).double(), torch.randint(0, 6, (4,))),
        **{"layer": nn.LayerNorm(6), "group": nn.GroupNorm(2, 6), "rms": nn.RMSNorm(6), "batch": nn.BatchNorm1d(6)},
    )


# -- products --------------------------------------------------------------------------------------------------


def test_products() -> None:
    def products(m: Model, a: Tensor, b: Tensor, v: Tensor, w: Tensor, c: Tensor) -> tuple[Tensor, ...]:
        return (
            *(a @ b, b.T @ a.T, a @ v, w @ a, v @ v, a @ a.T, torch.outer(v, w), m.linear(a)),
            *(c @ c.transpose(1, 2), torch.einsum("bij,kj->bik", c, a), torch.baddbmm(c, c, c)),
        )

    check(products, R(4, 5), R(5, 3), R(5), R(4), R(2, 5, 5), linear=nn.Linear(5, 2))


def test_attention_and_cells() -> None:
    def model(m: Model, q: Tensor, x: Tensor, h: Tensor) -> tuple[Tensor, ...]:
        return m.attention(q, q, q)[0], F.scaled_dot_product_attention(q, q, q, is_causal=True), m.gru(x, h)

    check(model, R(4, 2, 6), R(3, 4), R(3, 5), attention=nn.MultiheadAttention(6, 2), gru=nn.GRUCell(4, 5))


@settings(max_examples=2, phases=NO_SHRINKING)
@given(st.integers(1, 2), st.integers(0, 2), st.integers(1, 2), st.sampled_from([1, 2]))
def test_convolutions(stride: int, padding: int, dilation: int, groups: int) -> None:
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}

    def model(m: Model, x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        return m.line(x), m.plane(y), m.up(x)

    parts = {"line": nn.Conv1d(2, 4, 3, **options), "plane": nn.Conv2d(2, 4, (3, 2), **options)}
    check(model, R(2, 2, 7), R(2, 2, 6, 7), **parts, up=nn.ConvTranspose1d(2, 3, 3, stride=stride))


def test_pooling() -> None:
    functions = [
        *(lambda x: F.max_pool2d(x, 2), lambda x: F.max_pool2d(x, 3, stride=2, padding=1)),
        *(
            lambda x: F.avg_pool2d(x, 2),
            lambda x: F.max_pool1d(x[0], 3, stride=1),
            lambda x: F.avg_pool2d(x, 3, stride=2, padding=1),
        ),
        *(lambda x: F.adaptive_avg_pool2d(x, 1), lambda x: F.interpolate(x, scale_factor=2)),
    ]
    # Rounded: windows have ties.
    each(functions, R(2, 3, 6, 6).round())


# -- what moves elements ---------------------------------------------------------------------------------------


def test_views_and_joins() -> None:
    functions = [
        *(lambda x: torch.cat([x, x[1:3], 2 * x]), lambda x: torch.stack([x, x * x], 1), lambda x: x.t().contiguous()),
        *(lambda x: x[1:3, ::2] * x[0:2, 1::2], lambda x: x[-1, -1], lambda x: x[:, 2] * x[:, 3]),
        *(lambda x: torch.cat([p * i for i, p in enumerate(x.chunk(3, 1))], 1), lambda x: x.roll(2, 1)),
        *(lambda x: F.pad(x, (1, 2)), lambda x: F.pad(x[None], (1, 2), mode="reflect"), lambda x: x.flatten()),
        *(
            lambda x: x.flip(0) * x.flip(1),
            lambda x: x.repeat(2, 3),
            lambda x: x.expand(2, *x.shape) * x,
            lambda x: x.reshape(2, 2, 6).transpose(0, 2),
        ),
        *(lambda x: x.unfold(1, 3, 1), lambda x: x.tril(), lambda x: x.diagonal(), lambda x: x.masked_fill(x > 0, 3.0)),
        *(lambda x: torch.slice_scatter(x, x[:, :2] * 3, 1, 1, 3), lambda x: x.repeat_interleave(2, 1), F.glu),
    ]
    each(functions, R(4, 6))


def test_look_ups() -> None:
    def model(m: Model, tokens: Tensor, x: Tensor, places: Tensor, y: Tensor, z: Tensor) -> tuple[Tensor, ...]:
        return m.table(tokens), x.gather(1, places), y.index_select(1, places[0]), z[places]

    tokens, places = torch.randint(0, 5, (4, 3)), torch.randint(0, 4, (4, 7))
    check(model, tokens, R(4, 4), places, R(4, 5), R(4, 2), table=nn.Embedding(5, 6))


def test_single_elements() -> None:
    """Of x, y: a = x[0] * y, b = sin(x[1]), with all operations that make tensors of scalars."""
    module, main = parse("""
      func.func @main(%x: tensor<2xf64>, %y: tensor<f64>)
          -> (tensor<2x2xf64>, tensor<3xf64>, tensor<f64>, tensor<3xf64>) {
        %c0 = arith.constant 0 : index
        %c1 = arith.constant 1 : index
        %x0 = tensor.extract %x[%c0] : tensor<2xf64>
        %x1 = tensor.extract %x[%c1] : tensor<2xf64>
        %y0 = tensor.extract %y[] : tensor<f64>
        %a = arith.mulf %x0, %y0 : f64
        %b = math.sin %x1 : f64
        %r0 = tensor.from_elements %a, %b, %x0, %a : tensor<2x2xf64>
        %r1 = tensor.splat %b : tensor<3xf64>
        %e = tensor.empty() : tensor<f64>
        %r2 = linalg.fill ins(%a : f64) outs(%e : tensor<f64>) -> tensor<f64>
        %r3 = tensor.insert %a into %r1[%c1] : tensor<3xf64>
        return %r0, %r1, %r2, %r3 : tensor<2x2xf64>, tensor<3xf64>, tensor<f64>, tensor<3xf64>
      }""")
    assert differentiate(main) == [True, True]
    x, y = R(2).requires_grad_(), R(1)[0].clone().requires_grad_()
    a, b = x[0] * y, torch.sin(x[1])
    results = [torch.stack([a, b, x[0], a]).view(2, 2), b.expand(3), a, torch.stack([b, a, b])]
    cotangents = [torch.randn_like(r) for r in results]
    expected = torch.autograd.grad(results, [x, y], cotangents)
    assert_close(compiled(module)([x.detach(), y.detach(), *cotangents]), list(expected))


def test_arithmetic_on_tensors() -> None:
    module, main = parse("""
      func.func @main(%x: tensor<3xf64>, %c: tensor<3xi1>) -> tensor<3xf64> {
        %a = arith.mulf %x, %x : tensor<3xf64>
        %b = math.exp %a : tensor<3xf64>
        %y = arith.select %c, %b, %x : tensor<3xi1>, tensor<3xf64>
        return %y : tensor<3xf64>
      }""")
    differentiate(main)
    x, c, g = R(3).requires_grad_(), torch.tensor([True, False, True]), R(3)
    (expected,) = torch.autograd.grad(torch.where(c, torch.exp(x * x), x), x, g)
    (got,) = evaluate(module, (), [x.detach().numpy(), c.numpy(), g.numpy()])
    assert_close(torch.from_numpy(got), expected)


# -- element types ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_element_types(dtype: torch.dtype) -> None:
    tolerance = {torch.float32: 1e-5, torch.float16: 1e-2, torch.bfloat16: 5e-2}[dtype]

    def model(_: Model, x: Tensor, b: Tensor) -> tuple[Tensor, ...]:
        return torch.tanh(x @ x.T + b).sum(1), x.float() * 2

    check(model, torch.randn(4, 3).to(dtype), torch.randn(4).to(dtype), tolerance=tolerance)


def test_sums_of_half_precision_are_exact() -> None:
    # 4096 ones: a sum in half precision stops at 2048.
    module, _ = imported(Model(lambda _, x, b: x + b), [torch.zeros(4096, 2).half(), torch.zeros(2).half()])
    differentiate(find_function(module, "main"))
    inputs = [torch.zeros(4096, 2).half(), torch.zeros(2).half(), torch.ones(4096, 2).half()]
    assert compiled(module)(inputs)[1].tolist() == [4096.0, 4096.0]


# -- the form of the code --------------------------------------------------------------------------------------


def parse(text: str) -> tuple[ir.Module, func.FuncOp]:
    module = ir.Module.parse(text, context())
    return module, find_function(module, "main")


def names(main: func.FuncOp) -> list[str]:
    return [op.operation.name for op in main.entry_block.operations]


def test_symbolic_sizes() -> None:
    module, main = parse("""
      #xy = affine_map<(i, j) -> (i, j)>
      func.func @main(%N: index {parc.kind = "symbol", parc.name = "N"},
                      %x: tensor<?x4xf64> {parc.shape = affine_map<()[N] -> (N, 4)>},
                      %b: tensor<4xf64>) -> tensor<?x4xf64> {
        %e = tensor.empty(%N) : tensor<?x4xf64>
        %y = linalg.generic {indexing_maps = [#xy, affine_map<(i, j) -> (j)>, #xy],
                             iterator_types = ["parallel", "parallel"]}
            ins(%x, %b : tensor<?x4xf64>, tensor<4xf64>) outs(%e : tensor<?x4xf64>) {
        ^bb0(%u: f64, %v: f64, %o: f64):
          %p = arith.mulf %u, %v : f64
          linalg.yield %p : f64
        } -> tensor<?x4xf64>
        return %y : tensor<?x4xf64>
      }""")
    differentiate(main)
    assert "tensor.dim" not in names(main)
    with module.context:
        attributes = list(main.arg_attrs)
        main.arg_attrs = ir.ArrayAttr.get([*attributes[:3], attributes[1]])
    call = compiled(module)
    for n in (1, 7, 40):
        x, b, g = R(n, 4), R(4), R(n, 4)
        for got, want in zip(call([x, b, g]), (g * b, (g * x).sum(0)), strict=True):
            assert_close(got, want)


def test_a_product_with_known_weights_is_one_again() -> None:
    _, main = parse("""
      func.func @main(%x: tensor<3x4xf32>, %o: tensor<3x5xf32>) -> tensor<3x5xf32> {
        %w = arith.constant dense<1.0> : tensor<4x5xf32>
        %y = linalg.matmul ins(%x, %w : tensor<3x4xf32>, tensor<4x5xf32>) outs(%o : tensor<3x5xf32>) -> tensor<3x5xf32>
        return %y : tensor<3x5xf32>
      }""")
    assert differentiate(main) == [True, True]
    new = names(main)[2:]
    # No product for the constant weights; what the product is added to has the cotangent itself.
    assert [n for n in new if n.startswith("linalg.")] == ["linalg.transpose", "linalg.fill", "linalg.matmul"]


def test_parts_that_make_up_the_whole_need_no_zeros() -> None:
    module, _ = imported(Model(lambda _, x: tuple(torch.sin(p) for p in x.chunk(4, 1))), [R(3, 8)])
    differentiate(find_function(module, "main"))
    assert not walk(module.operation, "linalg.fill")
    assert len(walk(module.operation, "tensor.insert_slice")) == 4


def test_a_part_is_added_to_what_the_whole_has() -> None:
    check(lambda _, x: (x * x, x[:, -1], x[1:3]), R(4, 3))
    module, _ = imported(Model(lambda _, x: (x * x, x[:, -1])), [R(4, 3)])
    differentiate(find_function(module, "main"))
    assert not walk(module.operation, "linalg.fill")


@pytest.mark.parametrize(
    "function", [lambda _, x: x.softmax(1), lambda _, x: x.log_softmax(0), lambda _, x: F.cross_entropy(x, x.argmax(1))]
)
def test_the_maximum_in_a_softmax_has_no_gradient(function: Function) -> None:
    module, _ = imported(Model(function), [R(3, 8)])
    maxima = len([op for op in walk(module.operation, "arith.maximumf")])
    differentiate(find_function(module, "main"))
    # Ties would be counted by comparing with the maximum.
    counts = [op for op in walk(module.operation, "linalg.generic") if walk(op, "arith.uitofp")]
    assert maxima and not counts


def test_an_input_without_influence_has_no_gradient() -> None:
    module, _ = imported(Model(lambda _, x, y: (torch.floor(x) + y, x.argmax(1))), [R(3, 8), R(3, 8)])
    before = len(names(find_function(module, "main")))
    assert differentiate(find_function(module, "main")) == [False, True]
    assert len(names(find_function(module, "main"))) == before


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda _, x: x.cumsum(0), r"test_autodiff_rules.py:\d+:\d+: 'tm_tensor.scan' has no derivative"),
        (lambda _, x: x.sort(1)[0], r"test_autodiff_rules.py:\d+:\d+: 'tm_tensor.sort' has no derivative"),
    ],
)
def test_refuses_what_has_no_derivative(function: Function, message: str) -> None:
    module, _ = imported(Model(function), [R(3, 4)])
    with pytest.raises(CompileError, match=message):
        differentiate(find_function(module, "main"))


@pytest.mark.parametrize(
    ("update", "operation"),
    [
        ("%h = arith.mulf %s, %half : f32\n %n = arith.addf %h, %u : f32", "linalg.generic"),
        ("%c = arith.cmpf ogt, %u, %half : f32\n %n = scf.if %c -> f32 { scf.yield %u : f32 } else "
         "{ scf.yield %s : f32 }", "scf.if"),
    ],
)  # fmt: skip
def test_refuses_bodies_that_it_does_not_understand(update: str, operation: str) -> None:
    _, main = parse(
        """
      func.func @main(%x: tensor<4xf32>, %o: tensor<f32>) -> tensor<f32> {
        %half = arith.constant 0.5 : f32
        %y = linalg.generic {indexing_maps = [affine_map<(i) -> (i)>, affine_map<(i) -> ()>],
                             iterator_types = ["reduction"]} ins(%x : tensor<4xf32>) outs(%o : tensor<f32>) {
        ^bb0(%u: f32, %s: f32):
          UPDATE
          linalg.yield %n : f32
        } -> tensor<f32>
        return %y : tensor<f32>
      }""".replace("UPDATE", update)
    )
    with pytest.raises(CompileError, match=f"'{operation}' has no derivative"):
        differentiate(main)


def test_refuses_complex_numbers() -> None:
    # What is complex in between must not be taken for something that no gradient passes through.
    _, main = parse("""
      func.func @main(%x: f32) -> f32 {
        %c = complex.create %x, %x : complex<f32>
        %y = complex.re %c : complex<f32>
        return %y : f32
      }""")
    with pytest.raises(CompileError, match=r"'complex.re' has no derivative"):
        differentiate(main)


def test_refuses_scalar_operations_by_name() -> None:
    _, main = parse("""
      func.func @main(%x: tensor<4xf16>) -> tensor<4xbf16> {
        %y = arith.bitcast %x : tensor<4xf16> to tensor<4xbf16>
        return %y : tensor<4xbf16>
      }""")
    with pytest.raises(CompileError, match=r"'arith.bitcast' has no derivative"):
        differentiate(main)
