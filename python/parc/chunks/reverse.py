"""A chunk solved from its last states: every step computes the states before it from those after it.

A step of a reversible cell adds to its states what follows from others (Gomez et al. 2017, MacKay et al. 2018):

    a[t+1] = a[t] + f(b[t])      b[t+1] = b[t] + g(a[t+1])

The same equations say what the states before were, `b[t] = b[t+1] - g(a[t+1])` and then `a[t] = a[t+1] - f(b[t])`; all
else that a step computes stays as it is, on the same arrays.  Which state follows from which sum is found in the
equations' bodies (`sums.py`).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import networkx as nx
from torch_mlir import ir
from torch_mlir.dialects import func

from parc.autodiff.irtools import body_of, hoist_invariants, is_outside, named, read, remove_unused
from parc.chunks.program import state_slice, taken
from parc.chunks.sums import Term, solve, terms
from parc.chunks.systems import NoChunksError, States, states, time_symbol
from parc.codegen.irtools import captured_values, clone_with, find_function, terminator
from parc.errors import CompileError
from parc.poly.dependences import check_system
from parc.poly.model import System, build, systems

_ACCESSES = ("parc.read", "parc.write")

Node = tuple[str, str]
"""What a step computes: ("old", state), the state before it, or ("new", array), another array's element."""


class NotReversibleError(NoChunksError):
    """The states before a step do not follow from those after it; the message says why, and where."""


def reverse_steps(module: ir.Module) -> None:
    """Solve `@main`, a chunk that continues (`chunk-steps`), from its last states, in place.

    The inputs that were its initial states are the last ones, and the results of kind "state" are the first ones.
    What is saved stays a result; other results are left out.  NotReversibleError where the states do not follow.
    """
    main = find_function(module, "main")
    if main is None:
        raise CompileError("the module has no function @main")
    with module.context, ir.Location.unknown():
        models = [model for model in map(build, systems(module)) if model.boundaries]
        symbol = time_symbol(models)
        reversals = [_Reversal(model, symbol) for model in models]
        starts = sorted((start for r in reversals for start in r.starts()), key=lambda start: start.argument)
        for reversal in reversals:
            reversal.run()
        for start in starts:
            start.move_to_end(models[0].symbols.index(symbol))
        _return_starts(main, starts)
        for model in models:
            _remove_unread(model.op)
        remove_unused(main.entry_block)
        for op in systems(module):
            check_system(build(op))


@dataclass(frozen=True)
class _Start:
    """A first state: what `boundary` gives the element `place` of the array `unknown`."""

    system: ir.Operation
    unknown: ir.Value
    boundary: ir.Operation
    place: int
    argument: int
    """The number of the argument that it is."""

    def move_to_end(self, time: int) -> None:
        """Give the element as many steps later as there are; `time` is the position of their symbol."""
        to = self.boundary.attributes["to"].value
        last = ir.AffineExpr.get_symbol(time) + self.place
        self.boundary.attributes["to"] = ir.AffineMapAttr.get(ir.AffineMap.get(to.n_dims, to.n_symbols, [last]))


@dataclass(frozen=True)
class _Solution:
    """How the equation that writes a state, `array[t + lead] = value`, says what states before are."""

    array: States
    equation: ir.Operation
    write: ir.Operation
    terms: Mapping[str, Term | None]
    """The states whose oldest element can be solved for, and the terms of the sum that they are.

    None for `array` itself where the value follows from states of the same step, so that it does a step before, too.
    """


class _Reversal:
    """Reverses the steps of one system."""

    def __init__(self, model: System, symbol: str) -> None:
        self.system = model.op
        self._arrays = {model.unknown(name).op.results[0]: s for name, s in states(model, symbol).items()}
        self.states = {v: s for v, s in self._arrays.items() if s.given}
        """The states, by their `parc.unknown`."""
        self._writes = {
            write.operands[1]: (equation.op, write)
            for equation in model.equations
            for write in named(body_of(equation.op), "parc.write")
        }

    def starts(self) -> Iterator[_Start]:
        """The first states; NotReversibleError where they are not all arguments."""
        for unknown, array in self.states.items():
            places = array.places()
            if sorted(places) != list(range(array.lead)):
                raise NotReversibleError(f"not all first elements of {array.name} are given", self.system.location)
            for boundary, place in zip(array.given, places, strict=True):
                source = boundary.op.operands[1]
                if not isinstance(source.owner, ir.Block):
                    raise NotReversibleError(f"the first {array.name} is no argument", boundary.op.location)
                yield _Start(self.system, unknown, boundary.op, place, ir.BlockArgument(source).arg_number)

    def run(self) -> None:
        """Replace the equations by those that solve for the states before."""
        if not self.states:
            return
        self._read_states()
        chosen, needs = self._chosen()
        equations = {node: self._equation(node, chosen) for node in needs.nodes}
        parts: dict[ir.Operation, dict[int, list[Node]]] = {}
        turns = _turns(needs, equations)
        whole = nx.DiGraph()
        whole.add_edges_from(((equations[p], turns[p]), (equations[n], turns[n])) for p, n in needs.edges)
        whole.remove_edges_from(list(nx.selfloop_edges(whole)))
        if not nx.is_directed_acyclic_graph(whole):
            raise NotReversibleError("the equations of a step need each other", self.system.location)
        for node, turn in turns.items():
            parts.setdefault(equations[node], {}).setdefault(turn, []).append(node)
        for equation, by_turn in parts.items():
            for turn, nodes in sorted(by_turn.items()):
                self._emit(equation, nodes, chosen, f"_part{turn}" if turn < max(by_turn) else "")
            equation.erase()

    def _read_states(self) -> None:
        """Read states where an equation reads another array that has the same element."""
        for array, (equation, write) in self._writes.items():
            state = self._known(equation).get(write.operands[0])
            if array in self.states or state is None:
                continue
            later = self._offset(state) - self._offset(write)
            for use in list(array.uses):
                if use.owner.name == "parc.read":
                    op = use.owner.operation
                    at = op.attributes["at"].value
                    moved = ir.AffineMap.get(at.n_dims, at.n_symbols, [at.results[0] + later])
                    with ir.InsertionPoint(op), op.location:
                        op.results[0].replace_all_uses_with(read(state.operands[1], moved, op.results[0].type))
                    op.erase()

    # Which sum says which state.

    def _chosen(self) -> tuple[dict[str, _Solution], nx.DiGraph]:
        """For each state the sum that it is solved from, and what then needs what within a step: nothing itself."""
        sums = [self._solution(v, s) for v, s in self.states.items()]
        for matching in _matchings(sums):
            needs = self._needs(matching)
            if nx.is_directed_acyclic_graph(needs):
                return matching, needs
        where = sums[0].write.location
        raise NotReversibleError("the states before a step need each other: there is no first one to compute", where)

    def _solution(self, unknown: ir.Value, array: States) -> _Solution:
        equation, write = self._writes[unknown]
        element = write.operands[0].type.element_type
        if not isinstance(element, ir.F32Type | ir.F64Type):
            raise NotReversibleError(f"sums of {element} lose too many digits of {array.name}", write.location)
        found: dict[str, Term | None] = {}
        for term in terms(write.operands[0]):
            if term.read.operands[0] in self.states and self._offset(term.read) == 0:
                found.setdefault(self._arrays[term.read.operands[0]].name, term)
        if not found and array.lead == 1 and self._follows(equation, write):
            found[array.name] = None
        if not found:
            raise NotReversibleError(
                f"the new {array.name} is no sum of a state before and of what follows from others", write.location
            )
        return _Solution(array, equation, write, found)

    def _follows(self, equation: ir.Operation, write: ir.Operation) -> bool:
        """Whether what is written follows from new elements of other states alone."""
        accesses = list(self._accesses(equation, [write.operands[0]], but=self._arrays[write.operands[1]].name))
        return all(a.operands[-1] in self.states and self._offset(a) > 0 for a in accesses)

    def _accesses(self, equation: ir.Operation, values: Sequence[ir.Value], but: str = "") -> Iterator[ir.Operation]:
        """The reads that values of a body follow from, or the writes of states that say them, all `but` this one."""
        known, block = self._known(equation, but), body_of(equation)
        pending, seen = list(values), set()
        while pending:
            value = pending.pop()
            if value in seen or is_outside(value, block) or isinstance(value.owner, ir.Block):
                continue
            seen.add(value)
            op = value.owner.operation
            if value in known:
                yield known[value]
            elif op.name == "parc.read":
                yield op
            else:
                pending += captured_values(op)

    def _offset(self, access: ir.Operation) -> int:
        """The k of an access at t + k."""
        difference = (access.attributes["at"].value.results[0] - ir.AffineExpr.get_dim(0)).maybe_downcast()
        assert isinstance(difference, ir.AffineConstantExpr)
        return int(difference.value)

    def _needs(self, matching: Mapping[str, _Solution]) -> nx.DiGraph:
        """What has to be computed before what within a step."""
        graph = nx.DiGraph()
        for target, found in matching.items():
            graph.add_node(("old", target))
            term = found.terms[target]
            if term is None:
                self._add(graph, ("old", target), found.equation, [found.write.operands[0]], found.array.name)
            else:
                self._add(graph, ("old", target), found.equation, term.others())
        for unknown, (equation, write) in self._writes.items():
            if unknown not in self.states:
                graph.add_node(("new", self._arrays[unknown].name))
                self._add(graph, ("new", self._arrays[unknown].name), equation, [write.operands[0]])
        return graph

    def _add(
        self, graph: nx.DiGraph, node: Node, equation: ir.Operation, values: Sequence[ir.Value], of: str = ""
    ) -> None:
        """Note what a node needs to compute values of a body; those of the state `of` as they were a step before."""
        back = 1 if of else 0
        for access in self._accesses(equation, values, of):
            array = access.operands[-1]
            if array not in self.states and array in self._arrays:
                graph.add_edge(("new", self._arrays[array].name), node)
            elif array in self.states and self._offset(access) == back:
                graph.add_edge(("old", self._arrays[array].name), node)

    def _known(self, equation: ir.Operation, but: str = "") -> dict[ir.Value, ir.Operation]:
        """The values of a body that are new elements of states, which are known, and their writes, all `but` one."""
        writes = named(body_of(equation), "parc.write")
        return {
            w.operands[0]: w
            for w in reversed(writes)
            if w.operands[1] in self.states and self.states[w.operands[1]].name != but
        }

    def _equation(self, node: Node, chosen: Mapping[str, _Solution]) -> ir.Operation:
        """The equation that computes a node."""
        kind, name = node
        if kind == "old":
            return chosen[name].equation
        return next(equation for array, (equation, _) in self._writes.items() if self._arrays[array].name == name)

    # The new equations.

    def _emit(
        self, equation: ir.Operation, nodes: Sequence[Node], chosen: Mapping[str, _Solution], suffix: str
    ) -> None:
        """An equation that computes these nodes of another one, in front of it."""
        name = ir.StringAttr.get(ir.StringAttr(equation.attributes["name"]).value + suffix)
        attributes = {"name": name, "domain": equation.attributes["domain"]}
        with ir.InsertionPoint(equation), equation.location:
            op = ir.Operation.create("parc.equation", attributes=attributes, regions=1)
        old = body_of(equation)
        types = [a.type for a in old.arguments]
        block = op.regions[0].blocks.append(*types, arg_locs=[op.location] * len(types))
        own = {name: unknown for unknown, state in self.states.items() if ("old", name := state.name) in nodes}
        known = {of: self._known(equation, of) for of in ("", *own)}
        copies: dict[str, dict[ir.Value, ir.Value]] = {}
        solved: dict[str, ir.Value] = {}

        def emit(value: ir.Value, of: str = "") -> ir.Value:
            """A value of the old body; one that is the state `of` as it was a step before."""
            values = copies.setdefault(of, dict(zip(old.arguments, block.arguments, strict=True)))
            if value in values or is_outside(value, old):
                return values.get(value, value)
            access = known[of].get(value, value.owner.operation)
            with access.location:
                if access.operands[-1:] and access.operands[-1] in self.states and access.name in _ACCESSES:
                    values[value] = element(access, value.type, 1 if of else 0)
                else:
                    for operand in captured_values(access):
                        emit(operand, of)
                    clone_with(access, values)
            return values[value]

        def element(access: ir.Operation, type_: ir.Type, back: int) -> ir.Value:
            array, at = access.operands[-1], access.attributes["at"].value
            if self._offset(access) == back and self.states[array].name in own:
                return old_state(self.states[array].name)
            return read(array, ir.AffineMap.get(at.n_dims, at.n_symbols, [at.results[0] - back]), type_)

        def old_state(name: str) -> ir.Value:
            if name not in solved:
                found = chosen[name]
                term, total = found.terms[name], found.write.operands[0]
                solved[name] = emit(total, found.array.name) if term is None else solve(term, emit(total), emit)
            return solved[name]

        with ir.InsertionPoint(block):
            for kind, name in nodes:
                if kind == "old":
                    at = chosen[name].write.attributes["at"].value
                    here = ir.AffineMap.get(at.n_dims, at.n_symbols, [ir.AffineExpr.get_dim(0)])
                    attributes = {"at": ir.AffineMapAttr.get(here)}
                    ir.Operation.create("parc.write", operands=[old_state(name), own[name]], attributes=attributes)
                else:
                    write = next(w for array, (_, w) in self._writes.items() if self._arrays[array].name == name)
                    emit(write.operands[0])
                    clone_with(write, copies[""])
        hoist_invariants(block, self.system)


def _turns(needs: nx.DiGraph, equations: Mapping[Node, ir.Operation]) -> dict[Node, int]:
    """For each node which part of its equation it belongs to: parts run one after another, with others between.

    A node that needs another equation's, which needs one of its own equation, is of a later part than that one.
    """
    order = list(nx.topological_sort(needs))
    turns = {}
    for equation in dict.fromkeys(equations.values()):
        found: dict[Node, int] = {}
        for node in order:
            own = equations[node] == equation
            before = [found[p] + (equations[p] == equation and not own) for p in needs.predecessors(node)]
            found[node] = max(before, default=0)
            if own:
                turns[node] = found[node]
    return turns


def _matchings(
    sums: Sequence[_Solution], taken: Mapping[str, _Solution] | None = None
) -> Iterator[dict[str, _Solution]]:
    """Every way to solve each sum for a state of its own; a sum's own state comes first."""
    taken = taken or {}
    if not sums:
        yield dict(taken)
        return
    first, *rest = sums
    for name in sorted(first.terms, key=lambda n: n != first.array.name):
        if name not in taken:
            yield from _matchings(rest, {**taken, name: first})


def _return_starts(main: func.FuncOp, starts: Sequence[_Start]) -> None:
    """Return the first states and what is saved, and nothing else."""
    end = terminator(main.entry_block)
    attributes = [ir.DictAttr(a) for a in main.attributes["res_attrs"]]
    kinds = [ir.StringAttr(a["parc.kind"]).value if "parc.kind" in a else "" for a in attributes]
    with ir.InsertionPoint(end), end.location:
        values = [
            state_slice(main, s.unknown.owner, taken(s.system, s.unknown.owner), ir.AffineExpr.get_constant(s.place))
            for s in starts
        ]
        values += [v for v, kind in zip(end.operands, kinds, strict=True) if kind == "saved"]
        func.ReturnOp(values)
    end.erase()
    kept = [a for kind in ("state", "saved") for a, k in zip(attributes, kinds, strict=True) if k == kind]
    type_ = ir.FunctionType.get(main.type.inputs, [v.type for v in values])
    main.attributes["function_type"] = ir.TypeAttr.get(type_)
    main.attributes["res_attrs"] = ir.ArrayAttr.get(kept)


def _remove_unread(system: ir.Operation) -> None:
    """Erase what a system computes but nothing reads."""
    for use in list(system.results[0].uses):
        if not list(use.owner.operation.results[0].uses):
            use.owner.operation.erase()
    body = body_of(system)
    given = {ir.StringAttr(use.owner.attributes["name"]).value for use in system.results[0].uses}
    needed = [u.results[0] for u in named(body, "parc.unknown") if ir.StringAttr(u.attributes["name"]).value in given]
    equations = {e: named(body_of(e), "parc.write") for e in named(body, "parc.equation")}
    kept: set[ir.Operation] = set()
    for array in needed:
        for equation, writes in equations.items():
            if equation not in kept and any(w.operands[1] == array for w in writes):
                kept.add(equation)
                arrays = [op.operands[0] for op in named(body_of(equation), "parc.read")]
                needed += [a for a in arrays if not is_outside(a, body) and a not in needed]
    for equation in equations:
        if equation not in kept:
            equation.erase()
    for unknown in named(body, "parc.unknown"):
        users = [use.owner.operation for use in unknown.results[0].uses]
        if unknown.results[0] not in needed and all(op.name == "parc.boundary" for op in users):
            for boundary in users:
                boundary.erase()
            unknown.erase()
    if not kept:
        system.erase()
