"""The emulated GPU: correct kernels compute what they should in any order, wrong ones are caught and named."""

import math

import numpy as np
import pytest
from gpu_programs import Kernel

from parc.errors import CompileError, EmulationError

# The sum of a block's numbers in a tree: one barrier a level.
SUM = """
gpu.func @kernel(%x: memref<?xf32>, %y: memref<?xf32>)
    workgroup(%s: memref<256xf32, #gpu.address_space<workgroup>>) kernel {
  %c0 = arith.constant 0 : index
  %c2 = arith.constant 2 : index
  %t = gpu.thread_id x
  %b = gpu.block_id x
  %n = gpu.block_dim x
  %o = arith.muli %b, %n : index
  %p = arith.addi %o, %t : index
  %e = memref.load %x[%p] : memref<?xf32>
  memref.store %e, %s[%t] : memref<256xf32, #gpu.address_space<workgroup>>
  %half = arith.divui %n, %c2 : index
  scf.while (%k = %half) : (index) -> index {
    BARRIER
    %more = arith.cmpi ugt, %k, %c0 : index
    scf.condition(%more) %k : index
  } do {
  ^bb0(%k: index):
    %mine = arith.cmpi ult, %t, %k : index
    scf.if %mine {
      %q = arith.addi %t, %k : index
      %l = memref.load %s[%t] : memref<256xf32, #gpu.address_space<workgroup>>
      %r = memref.load %s[%q] : memref<256xf32, #gpu.address_space<workgroup>>
      %sum = arith.addf %l, %r : f32
      memref.store %sum, %s[%t] : memref<256xf32, #gpu.address_space<workgroup>>
    }
    %next = arith.divui %k, %c2 : index
    scf.yield %next : index
  }
  %first = arith.cmpi eq, %t, %c0 : index
  scf.if %first {
    %sum = memref.load %s[%c0] : memref<256xf32, #gpu.address_space<workgroup>>
    memref.store %sum, %y[%b] : memref<?xf32>
  }
  gpu.return
}
"""

# Blocks count themselves and wait for each other, and read what their neighbours wrote, for `steps` steps.
RING = """
func.func private @wait(%flag: memref<?xi32>, %goal: i32) {
  %one = arith.constant 1 : i32
  %address = memref.extract_aligned_pointer_as_index %flag : memref<?xi32> -> index
  %word = arith.index_cast %address : index to i64
  %p = llvm.inttoptr %word : i64 to !llvm.ptr
  %c0 = arith.constant 0 : index
  %t = gpu.thread_id x
  %first = arith.cmpi eq, %t, %c0 : index
  gpu.barrier
  scf.if %first {
    %old = llvm.atomicrmw add %p, %one syncscope("SCOPE") ARRIVE {alignment = 4 : i64} : !llvm.ptr, i32
    scf.while : () -> () {
      %now = llvm.load %p atomic syncscope("SCOPE") AWAIT {alignment = 4 : i64} : !llvm.ptr -> i32
      %more = arith.cmpi slt, %now, %goal : i32
      scf.condition(%more)
    } do {
      scf.yield
    }
  }
  gpu.barrier
  return
}
gpu.func @kernel(%flag: memref<?xi32>, %x: memref<2x?xi32>, %steps: index) kernel {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %one = arith.constant 1 : i32
  %t = gpu.thread_id x
  %b = gpu.block_id x
  %n = gpu.block_dim x
  %g = gpu.grid_dim x
  %o = arith.muli %b, %n : index
  %p = arith.addi %o, %t : index
  %b1 = arith.addi %b, %c1 : index
  %right = arith.remui %b1, %g : index
  %o1 = arith.muli %right, %n : index
  %q = arith.addi %o1, %t : index
  %blocks = arith.index_cast %g : index to i32
  scf.for %k = %c0 to %steps step %c1 {
    %c2 = arith.constant 2 : index
    %now = arith.remui %k, %c2 : index
    %next = arith.xori %now, %c1 : index
    %e = memref.load %x[%now, %q] : memref<2x?xi32>
    %more = arith.addi %e, %one : i32
    memref.store %more, %x[%next, %p] : memref<2x?xi32>
    %k1 = arith.addi %k, %c1 : index
    %round = arith.index_cast %k1 : index to i32
    %goal = arith.muli %round, %blocks : i32
    func.call @wait(%flag, %goal) : (memref<?xi32>, i32) -> ()
  }
  gpu.return
}
"""
SYNCHRONISED = {"SCOPE": "device", "ARRIVE": "acq_rel", "AWAIT": "acquire"}


def replaced(text: str, words: dict[str, str]) -> str:
    """The text with other words in the place of some."""
    for old, new in words.items():
        text = text.replace(old, new)
    return text


def thread_program(body: str, arguments: str = "%x: memref<?xf32>") -> str:
    """A kernel of one dimension with some values at hand."""
    return f"""
gpu.func @kernel({arguments}) kernel {{
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %t = gpu.thread_id x
  %b = gpu.block_id x
  %f1 = arith.constant 1.0 : f32
  {body}
  gpu.return
}}"""


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("cooperative", [False, True])
def test_sum_in_shared_memory(seed: int, cooperative: bool) -> None:
    x = np.arange(4 * 256, dtype=np.float32)
    y = np.zeros(4, np.float32)
    Kernel(SUM.replace("BARRIER", "gpu.barrier"), seed=seed)(x, y, grid=4, block=256, cooperative=cooperative)
    np.testing.assert_array_equal(y, x.reshape(4, 256).sum(axis=1))


@pytest.mark.parametrize("seed", range(4))
def test_missing_barrier(seed: int) -> None:
    x, y = np.ones(64, np.float32), np.zeros(1, np.float32)
    what = r"memref\.(load|store) at -:\d+:\d+ by thread \d+ of block 0"
    message = rf"data race in kernel: {what} and {what} are not ordered: a gpu.barrier between them is missing"
    with pytest.raises(EmulationError, match=message):
        Kernel(SUM.replace("BARRIER", ""), seed=seed)(x, y, block=64)


@pytest.mark.parametrize("seed", range(3))
def test_grid_barrier(seed: int) -> None:
    start = np.arange(4 * 64, dtype=np.int32)
    x, flag = np.stack([start, np.zeros_like(start)]), np.zeros(1, np.int32)
    Kernel(replaced(RING, SYNCHRONISED), seed=seed)(flag, x, 5, grid=4, block=64, cooperative=True)
    np.testing.assert_array_equal(x[1], np.roll(start, -5 * 64) + 5)


@pytest.mark.parametrize("wrong", [{"ARRIVE": "monotonic"}, {"AWAIT": "monotonic"}, {"SCOPE": "block"}])
def test_grid_barrier_without_release_or_acquire(wrong: dict[str, str]) -> None:
    x, flag = np.zeros((2, 4 * 32), np.int32), np.zeros(1, np.int32)
    with pytest.raises(EmulationError, match=r"data race in kernel: .* of block \d and .* of block \d are not ordered"):
        Kernel(replaced(RING, {**SYNCHRONISED, **wrong}))(flag, x, 2, grid=4, block=32, cooperative=True)


def test_blocks_one_after_another_cannot_wait_for_each_other() -> None:
    x, flag = np.zeros((2, 2 * 32), np.int32), np.zeros(1, np.int32)
    message = (
        r"deadlock in kernel: llvm.load at .* by thread 0 of block 0 waits for what no thread does, and gpu.barrier at"
    )
    kernel = Kernel(replaced(RING, SYNCHRONISED))
    with pytest.raises(EmulationError, match=message):
        kernel(flag, x, 1, grid=2, block=32)
    flag[:] = 0
    kernel(flag, x, 1, grid=2, block=32, cooperative=True)  # the emulator goes on after an error


@pytest.mark.parametrize(
    ("mode", "offset", "source"),
    [
        ("xor", 5, lambda lane: lane ^ 5),
        ("up", 3, lambda lane: np.where(lane >= 3, lane - 3, lane)),
        ("down", 30, lambda lane: np.where(lane < 2, lane + 30, lane)),
        ("idx", 7, lambda lane: 0 * lane + 7),
    ],
)
@pytest.mark.parametrize("type_", ["f32", "f16", "i64", "vector<2xf16>"])
def test_shuffles(mode: str, offset: int, source: object, type_: str) -> None:
    body = f"""
      %o = arith.constant {offset} : i32
      %w = arith.constant 32 : i32
      %e = memref.load %x[%t] : memref<?x{type_}>
      %r, %valid = gpu.shuffle {mode} %e, %o, %w : {type_}
      memref.store %r, %x[%t] : memref<?x{type_}>
      memref.store %valid, %y[%t] : memref<?xi1>"""
    kinds = {"f32": np.float32, "f16": np.float16, "i64": np.int64, "vector<2xf16>": np.float32}
    lane = np.arange(64) % 32
    x, valid = np.arange(64).astype(kinds[type_]), np.zeros(64, bool)
    expected = x[np.arange(64) // 32 * 32 + source(lane)]
    Kernel(thread_program(body, f"%x: memref<?x{type_}>, %y: memref<?xi1>"), seed=3)(x, valid, block=64)
    np.testing.assert_array_equal(x, expected)
    np.testing.assert_array_equal(valid, (source(lane) != lane) | (mode in ("xor", "idx")))


# The extent of k, the type of the factors, and how many are in a register.
PRODUCTS = [(16, "f16", 2), (8, "f16", 2), (16, "bf16", 2), (8, "f32", 1), (4, "f32", 1)]


@pytest.mark.parametrize(("depth", "factor", "packed"), PRODUCTS)
def test_matrix_product(depth: int, factor: str, packed: int) -> None:
    # Row and column of each element of a lane's fragments (PTX ISA, "Matrix Fragments for mma.m16n8k16").
    registers = depth // 2 // packed
    lane, register, element = np.ogrid[:32, :registers, :packed]
    k = lane % 4 * packed + element
    at_a = lane // 4 + register % 2 * 8 + 0 * element, register // 2 * 4 * packed + k
    at_b = (register * 4 * packed + k)[:, : registers // 2], (lane // 4 + 0 * (register + element))[:, : registers // 2]
    lane, register, element = np.ogrid[:32, :2, :2]
    at_c = lane // 4 + register * 8 + 0 * element, lane % 4 * 2 + element + 0 * register
    random = np.random.default_rng(0)
    a, b = (random.integers(-8, 8, shape).astype(np.float32) / 8 for shape in ((16, depth), (depth, 8)))
    c = random.standard_normal((16, 8)).astype(np.float32)
    lanes = [_stored(a[at_a], factor), _stored(b[at_b], factor), c[at_c]]
    shapes = [f"{n}x{packed}x{factor}" for n in (registers, registers // 2)] + ["2x2xf32"]
    flat = [f"{registers * packed}x{factor}", f"{registers // 2 * packed}x{factor}", "4xf32"]
    loads = [
        f"""%v{i} = vector.load %m{i}[%t, %c0] : memref<?x{flat[i]}>, vector<{flat[i]}>
        %g{i} = vector.shape_cast %v{i} : vector<{flat[i]}> to vector<{shapes[i]}>"""
        for i in range(3)
    ]
    body = f"""
      {"".join(loads)}
      %r = nvgpu.mma.sync(%g0, %g1, %g2) {{mmaShape = [16, 8, {depth}]{", tf32Enabled" if packed == 1 else ""}}}
        : (vector<{shapes[0]}>, vector<{shapes[1]}>, vector<{shapes[2]}>) -> vector<2x2xf32>
      %v = vector.shape_cast %r : vector<2x2xf32> to vector<4xf32>
      vector.store %v, %m2[%t, %c0] : memref<?x4xf32>, vector<4xf32>"""
    kernel = Kernel(thread_program(body, ", ".join(f"%m{i}: memref<?x{flat[i]}>" for i in range(3))), seed=1)
    buffers = [np.ascontiguousarray(x.reshape(32, -1)) for x in lanes]
    kernel(*buffers, block=32)
    result = np.zeros((16, 8), np.float32)
    result[at_c] = buffers[2].reshape(32, 2, 2)
    np.testing.assert_allclose(result, a @ b + c, rtol=1e-6, atol=1e-6)
    with pytest.raises(EmulationError, match="incomplete warp in kernel: nvgpu.mma.sync at .* takes all 32 threads"):
        kernel(*buffers, block=16)


def _stored(x: np.ndarray, type_: str) -> np.ndarray:
    """Numbers as they are in memory; numpy has no bfloat16."""
    if type_ == "bf16":
        return (x.view(np.uint32) >> 16).astype(np.uint16)
    return x.astype(np.float16 if type_ == "f16" else np.float32)


def test_tf32_has_ten_bits_of_fraction() -> None:
    body = """
      %ones = vector.broadcast %f1 : f32 to vector<4x1xf32>
      %e = memref.load %x[%c0] : memref<?xf32>
      %es = vector.broadcast %e : f32 to vector<2x1xf32>
      %c = arith.constant dense<0.0> : vector<2x2xf32>
      %r = nvgpu.mma.sync(%ones, %es, %c) {mmaShape = [16, 8, 8], tf32Enabled}
        : (vector<4x1xf32>, vector<2x1xf32>, vector<2x2xf32>) -> vector<2x2xf32>
      %s = vector.extract %r[0, 0] : f32 from vector<2x2xf32>
      gpu.barrier
      memref.store %s, %x[%t] : memref<?xf32>"""
    x = np.full(32, 1 + 2**-10 + 2**-11, np.float32)
    Kernel(thread_program(body))(x)
    np.testing.assert_array_equal(x, np.full(32, 8 * (1 + 2**-10), np.float32))


@pytest.mark.parametrize("seed", range(3))
def test_atomic_sum(seed: int) -> None:
    y = np.zeros(1, np.float32)
    body = "%old = memref.atomic_rmw addf %f1, %x[%c0] : (f32, memref<?xf32>) -> f32"
    Kernel(thread_program(body), seed=seed)(y, grid=4, block=96)
    assert y[0] == 4 * 96


def test_numbers_of_threads() -> None:
    names = ["thread_id x", "block_id x", "block_dim x", "grid_dim x", "lane_id", "subgroup_id : index"]
    names += ["subgroup_size : index", "num_subgroups : index", "global_id x", "thread_id y", "block_dim z"]
    body = """
      %n = gpu.block_dim x
      %o = arith.muli %b, %n : index
      %p = arith.addi %o, %t : index"""
    for i, name in enumerate(names):
        body += f"""
      %v{i} = gpu.{name}
      %i{i} = arith.constant {i} : index
      memref.store %v{i}, %x[%p, %i{i}] : memref<?x{len(names)}xindex>"""
    x = np.zeros((3 * 40, len(names)), np.int64)
    Kernel(thread_program(body, f"%x: memref<?x{len(names)}xindex>"))(x, grid=3, block=40)
    everyone, zero = np.arange(120), np.zeros(120)
    t = everyone % 40
    expected = [t, everyone // 40, zero + 40, zero + 3, t % 32, t // 32, zero + 32, zero + 2, everyone, zero, zero + 1]
    np.testing.assert_array_equal(x, np.stack(expected, axis=1))


def test_math_of_devices() -> None:
    body = """
      %e = memref.load %x[%t] : memref<?xf32>
      %r = math.rsqrt %e : f32
      %p = math.erf %r : f32
      memref.store %p, %x[%t] : memref<?xf32>
      %v = vector.load %x[%t] : memref<?xf32>, vector<1xf32>
      %w = math.rsqrt %v : vector<1xf32>
      vector.store %w, %x[%t] : memref<?xf32>, vector<1xf32>"""
    x = np.linspace(1, 4, 32, dtype=np.float32)
    expected = np.vectorize(math.erf)(x.astype(np.float64) ** -0.5) ** -0.5
    Kernel(thread_program(body))(x)
    np.testing.assert_allclose(x, expected, rtol=1e-6)


def test_masked_lanes_and_private_memory() -> None:
    body = """
      %c4 = arith.constant 4 : index
      %n = memref.dim %x, %c0 : memref<?xf32>
      %o = arith.muli %t, %c4 : index
      %left = arith.subi %n, %o : index
      %mask = vector.create_mask %left : vector<4xi1>
      %zero = arith.constant dense<0.0> : vector<4xf32>
      %v = vector.maskedload %x[%o], %mask, %zero : memref<?xf32>, vector<4xi1>, vector<4xf32> into vector<4xf32>
      %own = memref.alloca() : memref<4xf32>
      vector.store %v, %own[%c0] : memref<4xf32>, vector<4xf32>
      %e = memref.load %own[%c1] : memref<4xf32>
      %s = vector.broadcast %e : f32 to vector<4xf32>
      vector.maskedstore %x[%o], MASK, %s : memref<?xf32>, vector<4xi1>, vector<4xf32>"""
    x = np.arange(6, dtype=np.float32)
    Kernel(thread_program(body.replace("MASK", "%mask")))(x, block=2)
    np.testing.assert_array_equal(x, [1, 1, 1, 1, 5, 5])
    body = body.replace("%own = memref", "%all = arith.constant dense<true> : vector<4xi1>\n%own = memref")
    message = (
        "out of bounds in kernel: vector.maskedstore at .* by thread 1 of block 0: indices 4 to 7 in dimension 0, "
    )
    with pytest.raises(EmulationError, match=message + "whose extent is 6"):
        Kernel(thread_program(body.replace("MASK", "%all")))(x, block=2)


HALF_BARRIER = """
  %half = arith.constant 16 : index
  %mine = arith.cmpi ult, %t, %half : index
  scf.if %mine {
    gpu.barrier
  }"""
TWO_BARRIERS = """
  %half = arith.constant 16 : index
  %mine = arith.cmpi ult, %t, %half : index
  scf.if %mine {
    gpu.barrier
  } else {
    gpu.barrier
  }"""
HALF_SHUFFLE = """
  %half = arith.constant 16 : index
  %o = arith.constant 1 : i32
  %w = arith.constant 32 : i32
  %mine = arith.cmpi ult, %t, %half : index
  scf.if %mine {
    %r, %ok = gpu.shuffle xor %f1, %o, %w : f32
  }
  gpu.barrier"""
STORE_OUTSIDE = """
  %p = arith.addi %t, %c1 : index
  memref.store %f1, %x[%p] : memref<?xf32>"""
LOAD_BELOW = """
  %p = arith.subi %t, %c1 : index
  %v = vector.load %x[%p] : memref<?xf32>, vector<1xf32>
  vector.store %v, %x[%t] : memref<?xf32>, vector<1xf32>"""
SHARED_OUTSIDE = """
  %s = gpu.dynamic_shared_memory : memref<?xi8, #gpu.address_space<workgroup>>
  %v = memref.view %s[%c0][]
    : memref<?xi8, #gpu.address_space<workgroup>> to memref<32xf32, #gpu.address_space<workgroup>>
  memref.store %f1, %v[%t] : memref<32xf32, #gpu.address_space<workgroup>>"""
CAST_OUTSIDE = """
  %m = memref.reinterpret_cast %x to offset: [0], sizes: [64], strides: [1] : memref<?xf32> to memref<64xf32>
  %p = arith.addi %t, %t : index
  memref.store %f1, %m[%p] : memref<64xf32>"""
MISALIGNED = """
  %v = vector.load %x[%t] {alignment = 16 : i64} : memref<?xf32>, vector<4xf32>"""
UNSET = """
  %s = gpu.dynamic_shared_memory : memref<?xi8, #gpu.address_space<workgroup>>
  %v = memref.view %s[%c0][]
    : memref<?xi8, #gpu.address_space<workgroup>> to memref<8xf32, #gpu.address_space<workgroup>>
  %e = memref.load %v[%c1] : memref<8xf32, #gpu.address_space<workgroup>>
  memref.store %e, %x[%t] : memref<?xf32>"""
SPIN = """
  scf.while : () -> () {
    %e = memref.load %x[%c0] : memref<?xf32>
    %more = arith.cmpf olt, %e, %f1 : f32
    scf.condition(%more)
  } do {
    scf.yield
  }"""
PLANTED = [
    (
        HALF_BARRIER,
        "divergence in kernel: gpu.barrier at -:13:5 by thread 0 of block 0 waits, and thread 16 .* has ended",
    ),
    (TWO_BARRIERS, "divergence in kernel: gpu.barrier at -:15:5 .* waits in another place: gpu.barrier at -:13:5"),
    (HALF_SHUFFLE, "divergence in kernel: gpu.shuffle at .* waits, and .* waits in another place: gpu.barrier at"),
    (STORE_OUTSIDE, "kernel: memref.store at .* by thread 31 of block 0: index 32 in dimension 0, whose extent is 32"),
    (LOAD_BELOW, "out of bounds in kernel: vector.load at .* by thread 0 of block 0: index -1 in dimension 0, whose"),
    (SHARED_OUTSIDE, "kernel: memref.store at .* by thread 16 .*: bytes 64 to 67 of shared memory, which has 64"),
    (CAST_OUTSIDE, "kernel: memref.store at .* by thread 16 .*: bytes 128 to 131 of argument 0, which has 128"),
    (
        MISALIGNED,
        "misaligned access in kernel: vector.load at .* by thread 1 .*: bytes 4 to 19 .* not on a multiple of 16",
    ),
    (UNSET, "read of unset memory in kernel: memref.load at .* by thread 0 .*: bytes 4 to 7 of shared memory"),
    (SPIN, "deadlock in kernel: .* by thread 0 of block 0 waits for what no thread does"),
]


@pytest.mark.parametrize(("body", "message"), PLANTED)
def test_planted_errors(body: str, message: str) -> None:
    memory = np.zeros(64, np.float32)
    start = -(memory.ctypes.data // 4) % 4  # on a multiple of 16 bytes
    kernel = Kernel(thread_program(body))
    for _ in range(2):  # and the emulator goes on
        with pytest.raises(EmulationError, match=message):
            kernel(memory[start : start + 32], shared=64)


def test_races_are_named_by_the_lines_of_the_model() -> None:
    body = """
      %p = arith.xori %t, %c1 : index
      memref.store %f1, %x[%t] : memref<?xf32> loc(callsite("cell"("model.py":12:5) at "caller.py":3:1))
      %e = memref.load %x[%p] : memref<?xf32> loc(fused["h", "model.py":14:9])"""
    store, load = r"memref.store at model.py:12:5 by thread \d+", r"memref.load at model.py:14:9 by thread \d+"
    pair = rf"({store} of block 0 and {load}|{load} of block 0 and {store}) of block 0"
    message = rf"data race in kernel: {pair} are not ordered: a gpu.barrier between them is missing"
    with pytest.raises(EmulationError, match=message):
        Kernel(thread_program(body))(np.zeros(32, np.float32))


def test_neighbouring_bytes_are_no_race() -> None:
    body = """
      %b0 = arith.constant 1 : i8
      memref.store %b0, %x[%t] : memref<?xi8>
      %e = memref.load %x[%t] : memref<?xi8>"""
    x = np.zeros(64, np.uint8)
    Kernel(thread_program(body, "%x: memref<?xi8>"), seed=1)(x, grid=1, block=64)
    assert x.all()


def test_threads_of_a_warp_meet_at_its_own_barrier() -> None:
    body = """
      memref.store %f1, %x[%t] : memref<?xf32>
      gpu.barrier scope<subgroup>
      %c = arith.constant CONSTANT : index
      %p = arith.xori %t, %c : index
      %e = memref.load %x[%p] : memref<?xf32>"""
    x = np.zeros(64, np.float32)
    Kernel(thread_program(body.replace("CONSTANT", "5")))(x, block=64)
    with pytest.raises(EmulationError, match="data race"):
        Kernel(thread_program(body.replace("CONSTANT", "32")))(x, block=64)


def test_without_checks_of_races() -> None:
    x, y = np.ones(64, np.float32), np.zeros(1, np.float32)
    Kernel(SUM.replace("BARRIER", ""), check_races=False)(x, y, block=64)


def test_launches_that_no_device_takes() -> None:
    kernel = Kernel(thread_program(""))
    for grid, block in ((1, 0), (1, 1025), (-1, 32)):
        with pytest.raises(EmulationError, match="kernel cannot be launched"):
            kernel(np.zeros(1, np.float32), grid=grid, block=block)
    kernel(np.zeros(1, np.float32), grid=0)


@pytest.mark.parametrize("op", ['gpu.printf "x"', "%m = memref.alloc() : memref<4xf32>"])
def test_operations_that_cannot_be_emulated(op: str) -> None:
    with pytest.raises(CompileError, match=r"-:9:\d: .* cannot be emulated"):
        Kernel(thread_program(op))
