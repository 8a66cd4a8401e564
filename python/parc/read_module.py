"""What the attributes of a compiled module say about its program, as plain data that outlives the module.

The attributes are those of docs/architecture.md, "`@main`" and "CPU".
"""

from collections.abc import Mapping, Sequence

import torch
from torch_mlir import ir
from torch_mlir.dialects import func

from parc.arena_plan import ArenaBuffer, ArenaPlan
from parc.errors import CompileError
from parc.expression import Expression
from parc.memory import BlockMemory
from parc.poly.affine import with_names
from parc.runtime.facts import Facts, StaticTensor
from parc.signature import Extent, Iterated, Signature, TensorType

_OPERATORS = {
    ir.AffineAddExpr: "+",
    ir.AffineMulExpr: "*",
    ir.AffineFloorDivExpr: "//",
    ir.AffineCeilDivExpr: "ceildiv",
}


def read_signature(
    main: func.FuncOp, least: Mapping[str, int], unsigned: frozenset[str], *, sizes_given: bool = False
) -> Signature:
    """The signature of `@main`, all of whose shapes are known (`name-sizes`).

    `least` holds the least values of symbols, `unsigned` names the inputs and results whose integers are unsigned.
    CompileError for a symbol that does not follow from the inputs, unless calls are given the sizes.
    """
    attributes = [ir.DictAttr(a) for a in main.arg_attrs]
    kinds = [_string(a, "parc.kind", "input") for a in attributes]
    arguments = list(zip(main.type.inputs, attributes, kinds, strict=True))
    symbols = tuple(_string(a, "parc.name", "") for _, a, kind in arguments if kind == "symbol")

    def tensors(pairs: Sequence[tuple[ir.Type, ir.DictAttr]], default: str) -> tuple[TensorType, ...]:
        return tuple(_tensor(t, a, symbols, f"{default}{i}", unsigned) for i, (t, a) in enumerate(pairs))

    outputs = main.type.results
    named = main.attributes["res_attrs"] if "res_attrs" in main.attributes else [{}] * len(outputs)
    results = [(t, ir.DictAttr(a) if a else ir.DictAttr.get({})) for t, a in zip(outputs, named, strict=True)]
    by_kind: dict[str, list[tuple[ir.Type, ir.DictAttr]]] = {"result": [], "solution": [], "statistic": []}
    for type_, attribute in results:
        kind = _string(attribute, "parc.kind", "result")
        by_kind[kind if kind in by_kind else "result"].append((type_, attribute))
    if [pair for group in by_kind.values() for pair in group] != results:
        raise CompileError("expects solutions behind all other results, and statistics behind solutions", main.location)
    signature = Signature(
        symbols,
        tuple(least.get(name, 0) for name in symbols),
        tensors([(t, a) for t, a, kind in arguments if kind == "input"], "input"),
        tensors([(t, a) for t, a, kind in arguments if kind == "parameter"], "parameter"),
        tensors(by_kind["result"], "result"),
        tensors([(t, a) for t, a, kind in arguments if kind == "start"], "start"),
        tensors(by_kind["solution"], "solution"),
        _iterations(main, [attribute for _, attribute in by_kind["statistic"]]),
    )
    known = {extent.symbol for type_ in signature.inputs for extent in type_.shape if extent.scale}
    for i, name in enumerate(symbols):
        if i not in known and not sizes_given:
            raise CompileError(f"the size {name} does not follow from the shape of any input", main.location)
    return signature


def _iterations(main: func.FuncOp, statistics: Sequence[ir.DictAttr]) -> tuple[Iterated, ...]:
    """The iterations whose numbers of sweeps and last changes are results."""
    names = [_string(a, "parc.name", "") for a in statistics]
    found = [
        Iterated(
            name.removesuffix(".sweeps"),
            _string(attributes, "parc.solver", ""),
            ir.FloatAttr(attributes["parc.tolerance"]).value if "parc.tolerance" in attributes else None,
        )
        for name, attributes in zip(names[::2], statistics[::2], strict=True)
    ]
    if names != [f"{iteration.name}.{what}" for iteration in found for what in ("sweeps", "change")]:
        raise CompileError(f"expects the sweeps and then the change of each iteration, found {names}", main.location)
    return tuple(found)


def read_facts(module: ir.Module, symbols: Sequence[str] = ()) -> Facts:
    """What a module says in attributes, once its buffers are planned; `symbols` are its symbols' names for reports."""
    attributes = module.operation.attributes
    return Facts(
        tuple(_static(ir.TypeAttr(a).value) for a in _array(attributes, "parc.prepared")),
        tuple(ir.StringAttr(a).value for a in _array(attributes, "parc.assertions")),
        ArenaPlan(
            tuple(
                tuple(_buffer(ir.DictAttr(buffer), symbols) for buffer in ir.ArrayAttr(place))
                for place in _array(attributes, "parc.arena")
            )
        ),
        tuple(ir.StringAttr(a).value for a in _array(attributes, "parc.kernels")),
        tuple(ir.StringAttr(a).value for a in _array(attributes, "parc.sites")),
        ir.IntegerAttr(attributes["parc.blocks"]).value if "parc.blocks" in attributes else 0,
        _block_memory(attributes),
    )


def _block_memory(attributes: ir.OpAttributeMap) -> BlockMemory | None:
    if "parc.block" not in attributes:
        return None
    numbers = ir.DictAttr(attributes["parc.block"])
    threads, limit, used = (ir.IntegerAttr(numbers[key]).value for key in ("threads", "limit", "used"))
    weights = [ir.DictAttr(a) for a in _array(attributes, "parc.weights")]
    sizes = [(ir.StringAttr(w["equation"]).value, ir.IntegerAttr(w["bytes"]).value, "resident" in w) for w in weights]
    resident = tuple((name, size) for name, size, stays in sizes if stays)
    return BlockMemory(threads, limit, used, resident, tuple((n, size) for n, size, stays in sizes if not stays))


def _array(attributes: ir.OpAttributeMap, name: str) -> list[ir.Attribute]:
    return list(ir.ArrayAttr(attributes[name])) if name in attributes else []


def _static(type_: ir.Type) -> StaticTensor:
    tensor = ir.RankedTensorType(type_)
    return StaticTensor(_dtype("a prepared tensor", tensor.element_type, False), tuple(tensor.shape))


def _buffer(buffer: ir.DictAttr, symbols: Sequence[str]) -> ArenaBuffer:
    size = ir.AffineMapAttr(buffer["bytes"]).value
    (expr,) = size.results
    text = with_names(str(expr), (), tuple(symbols) or tuple(f"s{i}" for i in range(size.n_symbols)))
    return ArenaBuffer(ir.StringAttr(buffer["name"]).value, _expression(expr), text, "per_thread" in buffer)


def _tensor(
    type_: ir.Type, attributes: ir.DictAttr, symbols: tuple[str, ...], default: str, unsigned: frozenset[str]
) -> TensorType:
    name = _string(attributes, "parc.name", default)
    if not isinstance(type_, ir.RankedTensorType):
        raise CompileError(f"'{name}' is of type {type_}; programs take and return tensors")
    if "parc.shape" in attributes:
        shape = [read_extent(e, symbols) for e in ir.AffineMapAttr(attributes["parc.shape"]).value.results]
    else:
        shape = [_constant(n) for n in type_.shape]
    return TensorType(name, _dtype(name, type_.element_type, name in unsigned), tuple(shape))


def _string(attributes: ir.DictAttr, key: str, default: str) -> str:
    return ir.StringAttr(attributes[key]).value if key in attributes else default


def _constant(value: int) -> Extent:
    return Extent(str(value), Expression.constant(value), offset=value)


def read_extent(expr: ir.AffineExpr, symbols: tuple[str, ...]) -> Extent:
    """An expression in the symbols alone, which have these names, as an extent."""
    expr = expr.maybe_downcast()
    if isinstance(expr, ir.AffineConstantExpr):
        return _constant(expr.value)
    if isinstance(expr, ir.AffineSymbolExpr):
        return Extent(symbols[expr.position], _expression(expr), expr.position, 1)
    left, right = read_extent(expr.lhs, symbols), read_extent(expr.rhs, symbols)
    size = _expression(expr)
    # MLIR writes constants on the right.
    other = expr.rhs.maybe_downcast()
    constant = other.value if isinstance(other, ir.AffineConstantExpr) else None
    linear = constant is not None and left.scale > 0
    if isinstance(expr, ir.AffineAddExpr):
        text = f"{left.text} - {-constant}" if constant is not None and constant < 0 else f"{left.text} + {right.text}"
        if linear:
            return Extent(text, size, left.symbol, left.scale, left.offset + right.offset)
        return Extent(text, size)
    if isinstance(expr, ir.AffineMulExpr):
        text = f"{_grouped(right)}*{_grouped(left)}"
        if linear and right.offset > 0:
            return Extent(text, size, left.symbol, left.scale * right.offset, left.offset * right.offset)
        return Extent(text, size)
    if isinstance(expr, ir.AffineFloorDivExpr):
        return Extent(f"{_grouped(left)} // {_grouped(right)}", size)
    if isinstance(expr, ir.AffineCeilDivExpr):
        return Extent(f"ceil({left.text} / {_grouped(right)})", size)
    return Extent(f"{_grouped(left)} % {_grouped(right)}", size)


def _expression(expr: ir.AffineExpr) -> Expression:
    """An expression in the symbols alone."""
    expr = expr.maybe_downcast()
    if isinstance(expr, ir.AffineConstantExpr):
        return Expression.constant(expr.value)
    if isinstance(expr, ir.AffineSymbolExpr):
        return Expression.symbol(expr.position)
    operator = next((name for kind, name in _OPERATORS.items() if isinstance(expr, kind)), "%")
    return Expression.binary(operator, _expression(expr.lhs), _expression(expr.rhs))


def _grouped(extent: Extent) -> str:
    return extent.text if extent.text.isidentifier() or extent.text.isdigit() else f"({extent.text})"


def _dtype(name: str, type_: ir.Type, unsigned: bool) -> torch.dtype:
    """The torch type of an element type."""
    names = {"f64": "float64", "f32": "float32", "f16": "float16", "bf16": "bfloat16", "i1": "bool", "index": "int64"}
    names |= {f"i{n}": f"uint{n}" if unsigned else f"int{n}" for n in (8, 16, 32, 64)}
    names |= {"complex<f32>": "complex64", "complex<f64>": "complex128"}
    if str(type_) not in names:
        raise CompileError(f"'{name}' has elements of type {type_}, which torch has no type for")
    dtype: torch.dtype = getattr(torch, names[str(type_)])
    return dtype
