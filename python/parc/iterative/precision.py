"""What element types can tell apart."""

from collections.abc import Mapping

from torch_mlir import ir

from parc.errors import CompileError

_EPSILONS = {"f64": 2.0**-52, "f32": 2.0**-23, "f16": 2.0**-10, "bf16": 2.0**-7}
"""The distance from 1 to the next number."""


def check_tolerance(tolerance: float, arrays: Mapping[str, ir.Type], location: ir.Location) -> None:
    """Raise CompileError for a tolerance, other than 0, below the machine precision of an array to iterate."""
    for name, type_ in arrays.items():
        element = ir.ShapedType(type_).element_type
        least = _EPSILONS.get(str(element), 0.0)
        if 0 < tolerance < least:
            raise CompileError(
                f"a tolerance of {tolerance:.3g} is below the precision of {name}, which is {element}: the smallest "
                f"sensible one is {least:.3g}, and 0 sweeps until nothing changes",
                location,
            )
