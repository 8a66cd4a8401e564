"""Equations that leave out the last step make it too, so that all equations of a system have the same steps.

A value that a step starts with and that follows from the states before it, such as `c * h[t]`, is computed at the end
of the step before where it is known at the first step: `d[t+1] = c * h[t+1]` for all steps but the last one, whose
`d[t+1]` nothing reads.
"""

import islpy as isl
from torch_mlir import ir

from parc.autodiff.sets import integer_sets
from parc.poly.affine import SET, to_map
from parc.poly.model import Access, Equation, System, build


def complete_steps(system: ir.Operation) -> None:
    """Give equations of the steps 0 <= t < T - 1, for a symbol T, one step more, and their arrays one element."""
    while True:
        model = build(system)
        if not any(_complete(model, e, symbol) for symbol in model.symbols for e in model.equations):
            return


def _complete(model: System, equation: Equation, symbol: str) -> bool:
    """Give an equation its last step; False where it has it, or where it cannot be."""
    if equation.domain.dim(SET) != 1:
        return False
    all_but_last, every = (
        isl.Set(f"[{symbol}] -> {{ {equation.name}[t] : 0 <= t < {symbol}{end} }}").intersect_params(model.context)
        for end in (" - 1", "")
    )
    arrays = [model.unknown(w.array) for w in equation.writes]
    alone = all(sum(w.array == a.name for e in model.equations for w in e.writes) == 1 for a in arrays)
    if not equation.domain.is_equal(all_but_last) or not alone:
        return False
    if not all(_inside(a, every) for a in (*equation.reads, *equation.inputs)):
        return False
    steps, time = ir.AffineExpr.get_symbol(model.symbols.index(symbol)), ir.AffineExpr.get_dim(0)
    for array, write in zip(arrays, equation.writes, strict=True):
        at, shape = write.op.attributes["at"].value.results, array.op.attributes["shape"].value.results
        # The last element is the last step's.
        if len(at) != 1 or at[0] - time != shape[0] - steps + 1:
            return False
    for array in arrays:
        shape = array.op.attributes["shape"].value
        longer = ir.AffineMap.get(0, shape.n_symbols, [shape.results[0] + 1, *list(shape.results)[1:]])
        array.op.attributes["shape"] = ir.AffineMapAttr.get(longer)
    for boundary in model.boundaries:
        # What was given for sequences that are long enough is given for all: the array now has it.
        if boundary.target.array in [a.name for a in arrays] and boundary.target.relation.domain().dim(SET) == 0:
            (boundary.op.attributes["domain"],) = integer_sets(
                isl.Set.universe(boundary.target.relation.domain().get_space())
            )
    (equation.op.attributes["domain"],) = integer_sets(every.gist_params(model.context))
    return True


def _inside(access: Access, points: isl.Set) -> bool:
    """Whether an access finds elements of its array at all these points."""
    at = access.op.attributes["at"].value
    elements = access.elements
    if len(at.results) != elements.dim(SET):
        return False
    return bool(to_map(at, points, elements.get_tuple_name(), location=access.op.location).range().is_subset(elements))
