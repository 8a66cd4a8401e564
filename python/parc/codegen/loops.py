"""From a scheduled system to loops: islpy's AST of the schedule, and its translation to scf and arith.

The AST has *marks*: `step` around all points of one time, `wave` around all points of one value of the first
time coordinate.  Below a step, the remaining dimensions of each equation's domain are loops over points of equal time.
"""

from collections.abc import Mapping, Sequence

import islpy as isl
from torch_mlir import ir
from torch_mlir.dialects import arith, scf

from parc.codegen.irtools import constant_int
from parc.poly.model import Equation, System

STEP, WAVE = "step", "wave"
_SET, _OUT = isl.dim_type.set, isl.dim_type.out
_OP, _NODE, _EXPR = isl.ast_expr_op_type, isl.ast_node_type, isl.ast_expr_type


class Emitter:
    """What `emit` calls, in program order, with the insertion point inside the loops; subclasses say what happens."""

    def point(self, name: str, point: Sequence[ir.Value]) -> None:
        """One instance of the equation `name`."""
        raise NotImplementedError

    def run_dimension(self, name: str) -> int | None:
        """The domain dimension along which points of equal time may be given to `run` together."""
        return None

    def run(self, name: str, first: Sequence[ir.Value], count: ir.Value) -> None:
        """`count` instances (none if it is not positive) that follow each other along the `run_dimension`."""
        raise NotImplementedError

    def enter(self, mark: str, names: frozenset[str]) -> None:
        """Before the instances of one step or wave, in which the equations `names` may take part."""

    def leave(self, mark: str, names: frozenset[str]) -> None:
        """After the instances of one step or wave."""


def schedule_asts(system: System, innermost: Mapping[str, int | None]) -> list[isl.AstNode]:
    """The loops of a scheduled system, one after another; `innermost` names the dimension to put last, by equation.

    Equations whose first time is a number each, such as the phases of a solver, have loops of their own for each
    number: isl's time for all together grows with the square of how many there are.
    """
    # One without any instance has no order.
    equations = [e for e in system.equations if not e.domain.is_empty()]
    phases: dict[int | None, list[Equation]] = {}
    for equation in equations:
        phases.setdefault(_first_time(equation), []).append(equation)
    if None in phases:
        return [_schedule_ast(system.equations, innermost, system.context, is_wave=False)]
    return [
        _schedule_ast(phases[number], innermost, system.context, is_wave=True)
        for number in sorted(n for n in phases if n is not None)
    ]


def _first_time(equation: Equation) -> int | None:
    """The first coordinate of an equation's time where it is the same number at all points."""
    time = equation.op.attributes["schedule"].value.results[0]
    return time.value if isinstance(time, ir.AffineConstantExpr) else None


def _schedule_ast(
    equations: Sequence[Equation], innermost: Mapping[str, int | None], context: isl.Set, *, is_wave: bool
) -> isl.AstNode:
    """The loops of equations; if they are one wave, it is one even where its parts are there at different sizes."""
    domains = [isl.UnionSet.from_set(e.domain) for e in equations]
    node = isl.Schedule.from_domain(_union(domains)).get_root().child(0)
    if not is_wave:
        node = node.insert_partial_schedule(_times(equations, 0, 1)).child(0)
    node = node.insert_mark(isl.Id(WAVE)).child(0)
    if any(_rank(e) > 1 for e in equations):
        node = node.insert_partial_schedule(_times(equations, 1, None)).child(0)
    node = node.insert_mark(isl.Id(STEP)).child(0)
    filters = isl.UnionSetList.alloc(isl.DEFAULT_CONTEXT, len(domains))
    for d in domains:
        filters = filters.add(d)
    node = node.insert_sequence(filters)
    for i, equation in enumerate(equations):
        order = _points(equation.domain, innermost.get(equation.name))
        node = node.child(i).child(0).insert_partial_schedule(order).ancestor(2)
    return isl.AstBuild.from_context(context).node_from_schedule(node.get_schedule())


def _rank(equation: Equation) -> int:
    """The length of an equation's time."""
    assert equation.time is not None, "only of a scheduled system"
    return int(equation.time.range_tuple_dim())


def _times(equations: Sequence[Equation], first: int, stop: int | None) -> isl.MultiUnionPwAff:
    """The coordinates first..stop of the times of equations."""
    parts = []
    for equation in equations:
        assert equation.time is not None, "only of a scheduled system"
        rank = _rank(equation)
        end = rank if stop is None else stop
        time = equation.time.project_out(_OUT, end, rank - end).project_out(_OUT, 0, first)
        parts.append(isl.UnionMap.from_map(time))
    return isl.MultiUnionPwAff.from_union_map(_union(parts))


def domain_ast(domain: isl.Set, context: isl.Set) -> isl.AstNode:
    """Loops over the points of one set."""
    node = isl.Schedule.from_domain(isl.UnionSet.from_set(domain)).get_root().child(0)
    node = node.insert_partial_schedule(_points(domain, None))
    return isl.AstBuild.from_context(context).node_from_schedule(node.get_schedule())


def _union(parts: list[isl.UnionSet] | list[isl.UnionMap]) -> isl.UnionSet | isl.UnionMap:
    result = parts[0]
    for part in parts[1:]:
        result = result.union(part)
    return result


def _points(domain: isl.Set, innermost: int | None) -> isl.MultiUnionPwAff:
    """The order of a domain's points: its dimensions, with `innermost` moved to the end."""
    space = domain.get_space()
    dims = [d for d in range(domain.dim(_SET)) if d != innermost] + ([] if innermost is None else [innermost])
    local = isl.LocalSpace.from_space(space)
    affs = isl.AffList.alloc(isl.DEFAULT_CONTEXT, len(dims))
    for d in dims:
        affs = affs.add(isl.Aff.var_on_domain(local, _SET, d))
    target = space.map_from_domain_and_range(space.params().add_unnamed_tuple_ui(len(dims)))
    order = isl.Map.from_multi_aff(isl.MultiAff.from_aff_list(target, affs)).intersect_domain(domain)
    return isl.MultiUnionPwAff.from_union_map(isl.UnionMap.from_map(order))


def emit(node: isl.AstNode, symbols: Mapping[str, ir.Value], emitter: Emitter) -> None:
    """Emit the loops of an AST at the current insertion point."""
    _Translator(symbols, emitter).node(node)


def names_in(node: isl.AstNode) -> frozenset[str]:
    """The equations that have instances below a node."""
    names: set[str] = set()

    def visit(child: isl.AstNode) -> bool:
        if child.get_type() == _NODE.user:
            names.add(_callee(child.user_get_expr()))
        return True

    node.foreach_descendant_top_down(visit)
    return frozenset(names)


def _callee(call: isl.AstExpr) -> str:
    return str(call.op_get_arg(0).id_get_id().get_name())


class _Translator:
    """Translates one AST; `values` holds the symbols and the enclosing loops' counters by name."""

    def __init__(self, symbols: Mapping[str, ir.Value], emitter: Emitter) -> None:
        self.values = dict(symbols)
        self.emitter = emitter

    def node(self, node: isl.AstNode) -> None:
        kind = node.get_type()
        if kind == _NODE.block:
            children = node.block_get_children()
            for i in range(children.n_ast_node()):
                self.node(children.get_at(i))
        elif kind == _NODE.mark:
            mark, inside = str(node.mark_get_id().get_name()), node.mark_get_node()
            names = names_in(inside)
            self.emitter.enter(mark, names)
            self.node(inside)
            self.emitter.leave(mark, names)
        elif kind == _NODE.if_:
            self._if(node)
        elif kind == _NODE.for_:
            self._for(node)
        else:
            call = node.user_get_expr()
            point = [self.expr(call.op_get_arg(i)) for i in range(1, call.op_get_n_arg())]
            self.emitter.point(_callee(call), point)

    def _if(self, node: isl.AstNode) -> None:
        has_else = node.if_has_else_node()
        branch = scf.IfOp(self.condition(node.if_get_cond()), has_else=has_else)
        with ir.InsertionPoint(branch.then_block):
            self.node(node.if_get_then_node())
            scf.YieldOp([])
        if has_else:
            with ir.InsertionPoint(branch.else_block):
                self.node(node.if_get_else_node())
                scf.YieldOp([])

    def _for(self, node: isl.AstNode) -> None:
        iterator = str(node.for_get_iterator().id_get_id().get_name())
        first = self.expr(node.for_get_init())
        if node.for_is_degenerate():
            self.values[iterator] = first
            self.node(node.for_get_body())
            return
        condition = node.for_get_cond()
        end = self.expr(condition.op_get_arg(1))
        if condition.op_get_type() == _OP.le:
            end = arith.addi(end, index(1))
        step = self.expr(node.for_get_inc())
        body = node.for_get_body()
        if node.for_get_inc().int_get_val().is_one() and self._run(body, iterator, first, end):
            return
        loop = scf.ForOp(first, end, step)
        self.values[iterator] = loop.induction_variable
        with ir.InsertionPoint(loop.body):
            self.node(body)
            scf.YieldOp([])

    def _run(self, body: isl.AstNode, iterator: str, first: ir.Value, end: ir.Value) -> bool:
        """Emit a loop over instances of one equation as one run of it, if that may be done."""
        if body.get_type() != _NODE.user:
            return False
        call = body.user_get_expr()
        name = _callee(call)
        arguments = [call.op_get_arg(i) for i in range(1, call.op_get_n_arg())]
        moving = [i for i, a in enumerate(arguments) if iterator in _identifiers(a)]
        dimension = self.emitter.run_dimension(name)
        if moving != [dimension] or arguments[moving[0]].get_type() != _EXPR.id:
            return False
        self.values[iterator] = first
        self.emitter.run(name, [self.expr(a) for a in arguments], arith.subi(end, first))
        return True

    def condition(self, expr: isl.AstExpr) -> ir.Value:
        """An i1 value."""
        kind = expr.op_get_type()
        if kind in (_OP.and_, _OP.and_then, _OP.or_, _OP.or_else):
            parts = [self.condition(expr.op_get_arg(i)) for i in range(expr.op_get_n_arg())]
            combine = arith.andi if kind in (_OP.and_, _OP.and_then) else arith.ori
            result = parts[0]
            for part in parts[1:]:
                result = combine(result, part)
            return result
        left, right = (self.expr(expr.op_get_arg(i)) for i in range(2))
        return arith.cmpi(_COMPARISONS[kind], left, right)

    def expr(self, expr: isl.AstExpr) -> ir.Value:
        """An index value."""
        if expr.get_type() == _EXPR.int:
            return index(expr.int_get_val().to_python())
        if expr.get_type() == _EXPR.id:
            return self.values[str(expr.id_get_id().get_name())]
        kind = expr.op_get_type()
        if kind in (_OP.cond, _OP.select):
            yes, no = (self.expr(expr.op_get_arg(i)) for i in (1, 2))
            return arith.select(self.condition(expr.op_get_arg(0)), yes, no)
        values = [self.expr(expr.op_get_arg(i)) for i in range(expr.op_get_n_arg())]
        if kind == _OP.minus:
            return arith.subi(index(0), values[0])
        result = values[0]
        for value in values[1:]:
            result = _ARITHMETIC[kind](result, value)
        return result


_COMPARISONS = {
    _OP.eq: arith.CmpIPredicate.eq,
    _OP.le: arith.CmpIPredicate.sle,
    _OP.lt: arith.CmpIPredicate.slt,
    _OP.ge: arith.CmpIPredicate.sge,
    _OP.gt: arith.CmpIPredicate.sgt,
}
_ARITHMETIC = {
    _OP.add: arith.addi,
    _OP.sub: arith.subi,
    _OP.mul: arith.muli,
    _OP.max: arith.maxsi,
    _OP.min: arith.minsi,
    # isl: `div` is exact; `pdiv_*` have a dividend that is not negative; only whether `zdiv_r` is zero matters.
    _OP.div: arith.divsi,
    _OP.pdiv_q: arith.divui,
    _OP.pdiv_r: arith.remui,
    _OP.zdiv_r: arith.remsi,
    _OP.fdiv_q: arith.floordivsi,
}


def index(value: int) -> ir.Value:
    """`arith.constant` of type index."""
    return arith.constant(ir.IndexType.get(), value)


def share(count: ir.Value, tid: ir.Value, nthreads: ir.Value) -> tuple[ir.Value, ir.Value]:
    """The part `lo..hi` of `0..count` that a thread takes."""
    lo = arith.divui(arith.muli(tid, count), nthreads)
    return lo, arith.divui(arith.muli(arith.addi(tid, index(1)), count), nthreads)


def delinearize(position: ir.Value, counts: Sequence[ir.Value]) -> list[ir.Value]:
    """The loop counters, outermost first, at a position of the nest of loops with these counts."""
    counters: list[ir.Value] = []
    for i, count in reversed(list(enumerate(counts))):
        if constant_int(count) == 1:
            counters.append(index(0))
        elif all(constant_int(c) == 1 for c in counts[:i]):
            counters.append(position)
        else:
            counters.append(arith.remui(position, count))
            position = arith.divui(position, count)
    return counters[::-1]


def _identifiers(expr: isl.AstExpr) -> set[str]:
    """The names that an expression uses."""
    if expr.get_type() == _EXPR.id:
        return {str(expr.id_get_id().get_name())}
    if expr.get_type() == _EXPR.int:
        return set()
    return set().union(*(_identifiers(expr.op_get_arg(i)) for i in range(expr.op_get_n_arg())))
