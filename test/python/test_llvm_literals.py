"""`parc.gpu.literals`: numbers in LLVM IR survive the way from one LLVM to an older one."""

import math
import struct

import llvmlite.binding as llvm
import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from torch_mlir import ir
from torch_mlir.dialects import llvm as llvm_dialect

from parc.gpu.literals import with_old_literals

FORMATS = {"f16": ("half", ">H"), "bf16": ("bfloat", ">H"), "f32": ("float", ">I"), "f64": ("double", ">Q")}


def through_text(name: str, bits: int) -> str:
    """A function that returns the number of these bits, written by one LLVM and read by the other."""
    digits = struct.calcsize(FORMATS[name][1]) * 2
    with ir.Context():
        text = f"""llvm.func @f() -> {name} {{
          %c = llvm.mlir.constant(0x{bits:0{digits}X} : {name}) : {name}
          llvm.return %c : {name} }}"""
        module = ir.Module.parse(text)
        written = llvm_dialect.translate_module_to_llvmir(module.operation)
    return str(llvm.parse_assembly(with_old_literals(written)))


def read(text: str, type_: str) -> int:
    """The bits of the number that the function returns, as the older LLVM writes them."""
    token = text[text.index(f"ret {type_}") :].split()[2]
    if token.startswith(("0xH", "0xR")):
        return int(token[3:], 16)
    value = struct.unpack(">d", bytes.fromhex(token[2:].zfill(16)))[0] if token.startswith("0x") else float(token)
    if type_ == "double":
        return struct.unpack(">Q", struct.pack(">d", value))[0]
    return int(np.float32(value).view(np.uint32))


@given(st.sampled_from(sorted(FORMATS)), st.integers(0, 2**64 - 1))
def test_every_number_keeps_its_bits(name: str, bits: int) -> None:
    type_, code = FORMATS[name]
    bits &= (1 << 8 * struct.calcsize(code)) - 1
    found = read(through_text(name, bits), type_)
    if name == "f32" and math.isnan(struct.unpack(">f", struct.pack(">I", bits))[0]):
        # numpy makes NaNs quiet.
        found, bits = found | 1 << 22, bits | 1 << 22
    assert found == bits


def test_names_that_look_like_numbers_stay() -> None:
    text = 'define float @"f0x1.5"(float %v1.5) {\n  ret float %v1.5\n}\n!0 = !{!"1.5"}\n'
    assert with_old_literals(text) == text
