"""The adjoint of `@main`: forward and backward pass in one function, then cut in two where that keeps least."""

from collections.abc import Container, Iterable, Iterator, Sequence

from torch_mlir import ir
from torch_mlir.dialects import func

from parc.autodiff import cut
from parc.autodiff.emit import add, total, zeros
from parc.autodiff.extents import Sizes
from parc.autodiff.irtools import body_of, hoist_invariants, named, remove_unused
from parc.autodiff.reverse import Reverse
from parc.autodiff.stores import define_results
from parc.autodiff.system import SystemAdjoint
from parc.autodiff.words import words
from parc.codegen.irtools import (
    argument_kind,
    captured_values,
    copy_module,
    find_function,
    result_attributes,
    run_pipeline,
    terminator,
)
from parc.errors import CompileError
from parc.passes.name_sizes import NameSizes


def differentiate(module: ir.Module, wrt: Sequence[str]) -> None:
    """Make `@main` return what the backward pass needs, and write that pass as `@backward`.

    `wrt` names the arguments to differentiate for; all floating-point inputs and parameters when empty.  The form of
    both functions is described in docs/training.md.  CompileError for names that do not fit and for what has no
    derivative.
    """
    main = find_function(module, "main")
    if main is None:
        raise CompileError("the module has no function @main")
    with module.context, main.location:
        joint = _Joint(main, _arguments(main, wrt))
        joint.append_adjoint()
        run_pipeline(module, "canonicalize,cse", "adjoint")
        _Cut(module, joint).split()


def programs(module: ir.Module) -> tuple[ir.Module, ir.Module]:
    """The forward and the backward program of a differentiated module, each with its function as `@main`."""
    forward, backward = copy_module(module), copy_module(module)
    for copy, name in ((forward, "backward"), (backward, "main")):
        function = find_function(copy, name)
        assert function is not None
        function.operation.erase()
    main = find_function(backward, "backward")
    assert main is not None
    main.attributes["sym_name"] = ir.StringAttr.get("main", module.context)
    return forward, backward


def _arguments(main: func.FuncOp, wrt: Sequence[str]) -> list[ir.BlockArgument]:
    """The arguments with these names."""
    attributes = [ir.DictAttr(a) for a in main.arg_attrs]
    tensors = {
        _name(d, f"arg{i}"): a
        for i, (a, d) in enumerate(zip(main.arguments, attributes, strict=True))
        if argument_kind(d) in ("input", "parameter")
    }
    floating = [n for n, a in tensors.items() if _is_floating(a.type)]
    for name in wrt:
        if name not in tensors:
            raise CompileError(
                f"there is no argument '{name}' to differentiate for; floating-point: {', '.join(floating)}"
            )
        if name not in floating:
            raise CompileError(f"'{name}' is of type {tensors[name].type}, which has no gradient")
    chosen = set(wrt) or set(floating)
    return [a for n, a in tensors.items() if n in chosen]


class _Joint:
    """`@main` with the backward pass behind the forward one: it takes cotangents and returns gradients as well."""

    def __init__(self, main: func.FuncOp, wanted: Sequence[ir.BlockArgument]) -> None:
        self.main = main
        self.wanted = list(wanted)
        self.results = len(main.type.results)
        self.arguments = len(main.arguments)
        self.result_types = list(main.type.results)
        self._block = main.entry_block
        self._active: set[ir.Value] = set(wanted)
        self.recomputed: dict[str, list[str]] = {}
        """What the systems of the backward pass compute again, by equation."""
        self._cotangents: dict[ir.Value, list[ir.Value]] = {}

    def append_adjoint(self) -> None:
        """Append arguments for the cotangents of the results, the backward pass, and its results."""
        for system in named(self._block, "parc.system"):
            for equation in named(body_of(system), "parc.equation"):
                # What a reader makes of an outer value, such as a reshape, is differentiated where that value is.
                hoist_invariants(body_of(equation), system)
        segments = list(self._segments())
        end = terminator(self._block)
        returned = list(end.operands)
        attributes = [_attributes(a) for a in self.main.arg_attrs]
        results = result_attributes(self.main)
        for i, value in ((i, v) for i, v in enumerate(returned) if _is_floating(v.type)):
            seed = self._block.add_argument(value.type, end.location)
            attributes.append(_input(f"gradient{i}") | _shape(results[i]))
            if value in self._active:
                self._cotangents.setdefault(value, []).append(seed)
        self.main.arg_attrs = ir.ArrayAttr.get([ir.DictAttr.get(a) for a in attributes])
        with ir.InsertionPoint(end):
            for segment in reversed(segments):
                if isinstance(segment, SystemAdjoint):
                    self._through_system(segment)
                else:
                    self._through_code(segment)
            for argument in self.wanted:
                gradient = self._total(argument)
                returned.append(gradient if gradient is not None else zeros(argument, Sizes()))
            func.ReturnOp(returned)
        end.erase()
        types = [a.type for a in self._block.arguments]
        self.main.attributes["function_type"] = ir.TypeAttr.get(ir.FunctionType.get(types, [v.type for v in returned]))
        names = [_attributes(self.main.arg_attrs[a.arg_number]) for a in self.wanted]
        results += [{k: v for k, v in n.items() if k in ("parc.name", "parc.shape")} for n in names]
        self.main.attributes["res_attrs"] = ir.ArrayAttr.get([ir.DictAttr.get(a) for a in results])

    def _segments(self) -> Iterator[SystemAdjoint | list[ir.Operation]]:
        """The function in parts: systems and the code between them; finds out on the way what is active."""
        systems: dict[ir.Operation, SystemAdjoint] = {}
        code: list[ir.Operation] = []
        for op in (o.operation for o in self._block.operations):
            if op.name == "parc.array":
                if ir.StringAttr(op.attributes["name"]).value in systems[op.operands[0].owner.operation].active:
                    self._active.add(op.results[0])
            elif op.name in ("parc.system", "func.return"):
                if code:
                    self._active |= self._reverse(code).active
                    yield code
                    code = []
                if op.name == "parc.system":
                    systems[op] = SystemAdjoint(op, self._active.__contains__)
                    yield systems[op]
            else:
                code.append(op)

    def _reverse(self, code: Sequence[ir.Operation]) -> Reverse:
        return Reverse(code, self._leaves(code), Sizes())

    def _leaves(self, code: Sequence[ir.Operation]) -> list[ir.Value]:
        """The active values that the code takes from before."""
        own = set(code)
        used = dict.fromkeys(v for op in code for v in captured_values(op))
        return [
            v for v in used if v in self._active and (isinstance(v.owner, ir.Block) or v.owner.operation not in own)
        ]

    def _through_code(self, code: Sequence[ir.Operation]) -> None:
        reverse = self._reverse(code)
        made = [r for op in code for r in op.results if r in self._cotangents]
        for value in made:
            reverse.seed(value, self._total(value))
        if not made:
            return
        reverse.run()
        for leaf in self._leaves(code):
            self._cotangents.setdefault(leaf, []).extend(reverse.contributions(leaf))

    def _through_system(self, adjoint: SystemAdjoint) -> None:
        arrays: dict[str, ir.Value] = {}
        for use in adjoint.system.results[0].uses:
            op = use.owner.operation
            cotangent = self._total(op.results[0])
            if cotangent is not None:
                name = ir.StringAttr(op.attributes["name"]).value
                # An array may be taken out more than once.
                arrays[name] = add(arrays[name], cotangent, Sizes()) if name in arrays else cotangent
        for value, part in adjoint.run(arrays) if arrays else ():
            self._cotangents.setdefault(value, []).append(part)
        self.recomputed |= adjoint.recomputed

    def _total(self, value: ir.Value) -> ir.Value | None:
        """The cotangent of a value, summed here; None where there is none."""
        parts = self._cotangents.get(value, [])
        if not parts:
            return None
        self._cotangents[value] = [total(parts, Sizes())]
        return self._cotangents[value][0]


class _Cut:
    """Cuts a joint function in `@main`, which returns what is saved as well, and `@backward`."""

    def __init__(self, module: ir.Module, joint: _Joint) -> None:
        self._module = module
        self._main = joint.main
        self._joint = joint
        self._block = joint.main.entry_block
        self._ops = [o.operation for o in self._block.operations]
        self._behind = self._dependents(list(self._block.arguments)[joint.arguments :])

    def split(self) -> None:
        saved = self._saved()
        backward = self._backward(saved)
        self._shorten_main(saved)
        for system in named(self._block, "parc.system"):
            define_results(system)
        self._name_saved(backward, len(saved))

    def _dependents(self, values: Iterable[ir.Value]) -> set[ir.Operation]:
        """The operations that depend on any of these values."""
        reached, found = set(values), set()
        for op in self._ops:
            if any(v in reached for v in captured_values(op)):
                found.add(op)
                reached |= set(op.results)
        return found

    def _saved(self) -> list[ir.Value]:
        """The forward values that the backward pass is given; it recomputes the others that it needs."""
        forward = {r for op in self._ops if op not in self._behind for r in op.results}
        needed = {v for op in self._behind if op.name != "func.return" for v in captured_values(op) if v in forward}
        end = terminator(self._block)
        needed |= {v for v in list(end.operands)[self._joint.results :] if v in forward}

        def made_from(value: ir.Value) -> Sequence[ir.Value] | None:
            op = value.owner.operation
            if cut.is_costly(op) or op.name.startswith(("scf.", "tm_tensor.")):
                return None
            return [v for v in captured_values(op) if v in forward]

        kept = cut.minimum_cut(needed, made_from, cut.tensor_bytes)
        return [r for op in self._ops for r in op.results if r in kept]

    def _backward(self, saved: Sequence[ir.Value]) -> func.FuncOp:
        """A copy of the joint function that takes the saved values and returns the gradients alone."""
        with ir.InsertionPoint.after(self._main):
            copy = self._main.operation.clone().opview
        copy.attributes["sym_name"] = ir.StringAttr.get("backward")
        block = copy.entry_block
        twins = dict(zip((r for op in self._ops for r in op.results), _results(block), strict=True))
        for value in saved:
            twins[value].replace_all_uses_with(block.add_argument(value.type, self._main.location))
        _return(copy, list(terminator(block).operands)[self._joint.results :])
        self._note_recomputed(copy, {twins[r] for op in self._ops if op not in self._behind for r in op.results})
        remove_unused(block)
        attributes = [_attributes(a) for a in self._main.arg_attrs]
        attributes += [_input(f"saved{i}") for i in range(len(saved))]
        kinds = [argument_kind(ir.DictAttr.get(a)) for a in attributes]
        first = self._joint.arguments
        order = [
            *(i for i in range(first) if kinds[i] == "symbol"),
            *range(first, len(attributes)),
            *(i for i in range(first) if kinds[i] == "input" and list(block.arguments[i].uses)),
            *(i for i in range(first) if kinds[i] == "parameter" and list(block.arguments[i].uses)),
        ]
        _reorder_arguments(copy, order)
        copy.attributes["arg_attrs"] = ir.ArrayAttr.get([ir.DictAttr.get(attributes[i]) for i in order])
        gradients = result_attributes(self._main)[self._joint.results :]
        copy.attributes["res_attrs"] = ir.ArrayAttr.get([ir.DictAttr.get(g) for g in gradients])
        return copy

    def _note_recomputed(self, backward: func.FuncOp, forward: Container[ir.Value]) -> None:
        """Say in an attribute what the backward function computes again, for reports; `forward` are copies there."""
        used, pending = set(), list(terminator(backward.entry_block).operands)
        while pending:
            value = pending.pop()
            if value not in used and not isinstance(value.owner, ir.Block):
                used.add(value)
                pending += captured_values(value.owner)
        own = words(o.operation for o in backward.entry_block.operations if _any(o, used) and _any(o, forward))
        found = {"main": own, **self._joint.recomputed}
        lists = {name: ir.ArrayAttr.get([ir.StringAttr.get(w) for w in ws]) for name, ws in found.items() if ws}
        backward.attributes["parc.recomputed"] = ir.DictAttr.get(lists)

    def _shorten_main(self, saved: Sequence[ir.Value]) -> None:
        results = list(terminator(self._block).operands)[: self._joint.results]
        attributes = result_attributes(self._main)[: self._joint.results]
        attributes += [{**_input(f"saved{i}"), "parc.kind": ir.StringAttr.get("saved")} for i in range(len(saved))]
        _return(self._main, [*results, *saved])
        remove_unused(self._block)
        for _ in range(len(self._block.arguments) - self._joint.arguments):
            self._block.erase_argument(self._joint.arguments)
        types = [a.type for a in self._block.arguments]
        values = [v.type for v in terminator(self._block).operands]
        self._main.attributes["function_type"] = ir.TypeAttr.get(ir.FunctionType.get(types, values))
        self._main.attributes["res_attrs"] = ir.ArrayAttr.get([ir.DictAttr.get(a) for a in attributes])
        self._main.arg_attrs = ir.ArrayAttr.get(list(self._main.arg_attrs)[: self._joint.arguments])

    def _name_saved(self, backward: func.FuncOp, count: int) -> None:
        """Find the shapes of the saved values as functions of the symbols, for both functions."""
        NameSizes().run(self._module)
        shapes = [_shape(_attributes(a)) for a in list(self._main.attributes["res_attrs"])[self._joint.results :]]
        attributes = [_attributes(a) for a in backward.arg_attrs]
        for attribute in attributes:
            name = ir.StringAttr(attribute["parc.name"]).value
            if name.startswith("saved") and name[5:].isdigit() and "parc.shape" not in attribute:
                attribute.update(shapes[int(name[5:])])
        backward.arg_attrs = ir.ArrayAttr.get([ir.DictAttr.get(a) for a in attributes])


def _results(block: ir.Block) -> list[ir.Value]:
    return [r for op in block.operations for r in op.operation.results]


def _any(op: ir.OpView, values: Container[ir.Value]) -> bool:
    """Whether one of an operation's results is among these values."""
    return any(result in values for result in op.operation.results)


def _return(function: func.FuncOp, values: Sequence[ir.Value]) -> None:
    end = terminator(function.entry_block)
    with ir.InsertionPoint(end), end.location:
        func.ReturnOp(list(values))
    end.erase()


def _reorder_arguments(function: func.FuncOp, order: Sequence[int]) -> None:
    """Keep these arguments, in this order."""
    block = function.entry_block
    old = list(block.arguments)
    for position in order:
        old[position].replace_all_uses_with(block.add_argument(old[position].type, function.location))
    for _ in old:
        block.erase_argument(0)
    types = [a.type for a in block.arguments]
    values = [v.type for v in terminator(block).operands]
    function.attributes["function_type"] = ir.TypeAttr.get(ir.FunctionType.get(types, values))


def _attributes(dictionary: ir.Attribute) -> dict[str, ir.Attribute]:
    return {named_.name: named_.attr for named_ in ir.DictAttr(dictionary)}


def _input(name: str) -> dict[str, ir.Attribute]:
    return {"parc.kind": ir.StringAttr.get("input"), "parc.name": ir.StringAttr.get(name)}


def _shape(attributes: dict[str, ir.Attribute]) -> dict[str, ir.Attribute]:
    return {"parc.shape": attributes["parc.shape"]} if "parc.shape" in attributes else {}


def _name(attributes: ir.DictAttr, default: str) -> str:
    return ir.StringAttr(attributes["parc.name"]).value if "parc.name" in attributes else default


def _is_floating(type_: ir.Type) -> bool:
    return isinstance(type_, ir.RankedTensorType) and isinstance(type_.element_type, ir.FloatType)
