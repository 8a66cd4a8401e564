"""LLVM IR as text, from the LLVM in torch-mlir to the older one in llvmlite.

The newer LLVM writes a number as decimals that round to it in its type, by its bits behind `f0x`, or as `+inf`, `-qnan`
or `+snan(0x1)`. The older one takes a decimal only where it is exact, and bits in forms of its own:

    fadd float %x, 1.000000e-01        fadd float %x, 0x3FB99999A0000000       (as those of a double)
    fadd bfloat %x, +inf               fadd bfloat %x, 0xR7F80
"""

import re
import struct
from dataclasses import dataclass

_TOKENS = re.compile(
    r"""
    "[^"]*"
    | (?<![\w.@%]) (?P<type> half | bfloat | float | double) \b
    | (?<![\w.@%$-]) (?:
        f0x (?P<bits> [0-9A-Fa-f]+)
        | (?P<sign> [+-]) (?P<special> inf | qnan | nan | snan) (?: \(0x (?P<payload> [0-9A-Fa-f]+) \) )?
        | (?P<decimal> -? \d+ \. \d+ (?: e [+-]? \d+ )?)
      ) (?! [\w.])
    """,
    re.VERBOSE,
)


@dataclass(frozen=True)
class _Format:
    """How a type's numbers are laid out."""

    width: int
    mantissa: int
    code: str
    """Of the `struct` module, for the type itself, or for the one whose upper half it is."""
    prefix: str

    @property
    def infinity(self) -> int:
        return (1 << (self.width - 1)) - (1 << self.mantissa)


_FORMATS = {
    "half": _Format(16, 10, "e", "0xH"),
    "bfloat": _Format(16, 7, "f", "0xR"),
    "float": _Format(32, 23, "f", "0x"),
    "double": _Format(64, 52, "d", "0x"),
}


def with_old_literals(text: str) -> str:
    """The text with every floating-point number as the older LLVM reads it."""
    format_ = _FORMATS["float"]

    def rewrite(token: re.Match[str]) -> str:
        nonlocal format_
        if token["type"]:
            format_ = _FORMATS[token["type"]]
        if not (token["bits"] or token["special"] or token["decimal"]):
            return token[0]
        # The nearest type to the left is the number's: `fadd float %x, 1.0`, `phi float [ 1.0, %a ], [ 2.0, %b ]`.
        return _spell(_bits(token, format_), format_)

    return _TOKENS.sub(rewrite, text)


def _bits(token: re.Match[str], format_: _Format) -> int:
    """A number's representation in its type."""
    if token["bits"]:
        return int(token["bits"], 16)
    if token["special"]:
        quiet = token["special"] in ("qnan", "nan") and 1 << (format_.mantissa - 1)
        payload = int(token["payload"] or "0", 16)
        return (token["sign"] == "-") << (format_.width - 1) | format_.infinity | quiet | payload
    packed = int.from_bytes(struct.pack(f">{format_.code}", float(token["decimal"])))
    dropped = 8 * struct.calcsize(format_.code) - format_.width
    # What is dropped of a bfloat is what its decimals are off by: never half a unit.
    return packed + (1 << dropped >> 1) >> dropped


def _spell(bits: int, format_: _Format) -> str:
    """A number as the older LLVM reads it: one of 32 bits is written as a double."""
    if format_.width != 32:
        return f"{format_.prefix}{bits:0{format_.width // 4}X}"
    if bits & format_.infinity == format_.infinity:
        double = _FORMATS["double"]
        mantissa = (bits & (1 << format_.mantissa) - 1) << (double.mantissa - format_.mantissa)
        return f"0x{bits >> 31 << 63 | double.infinity | mantissa:016X}"
    (value,) = struct.unpack(">f", bits.to_bytes(4))
    return f"0x{struct.pack('>d', value).hex().upper()}"
