"""The emulator finds a race in a random program of loads, stores, atomics and barriers exactly if there is one."""

import itertools

import numpy as np
import pytest
from gpu_programs import Kernel

from parc.errors import EmulationError

STEPS, WORDS = 6, 3
NOTHING, LOAD_BYTE, STORE_BYTE, LOAD_WORD, STORE_WORD, ADD_WORD = range(6)
WRITES = (STORE_BYTE, STORE_WORD, ADD_WORD)

# Thread i of the grid does at step s what script[i, s] says: an operation and a byte or word of x.  The threads of a
# block meet at a barrier after the steps that it chose.
INTERPRETER = f"""
gpu.func @kernel(%x: memref<{4 * WORDS}xi8>, %script: memref<?x{STEPS}x2xindex>, %meets: memref<?x{STEPS}xi1>) kernel {{
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %steps = arith.constant {STEPS} : index
  %byte = arith.constant 1 : i8
  %word = arith.constant 1 : i32
  %words = memref.view %x[%c0][] : memref<{4 * WORDS}xi8> to memref<{WORDS}xi32>
  %start = memref.extract_aligned_pointer_as_index %x : memref<{4 * WORDS}xi8> -> index
  %t = gpu.thread_id x
  %b = gpu.block_id x
  %n = gpu.block_dim x
  %o = arith.muli %b, %n : index
  %me = arith.addi %o, %t : index
  scf.for %s = %c0 to %steps step %c1 {{
    %op = memref.load %script[%me, %s, %c0] : memref<?x{STEPS}x2xindex>
    %at = memref.load %script[%me, %s, %c1] : memref<?x{STEPS}x2xindex>
    scf.index_switch %op
    case {LOAD_BYTE} {{
      %e = memref.load %x[%at] : memref<{4 * WORDS}xi8>
      scf.yield
    }}
    case {STORE_BYTE} {{
      memref.store %byte, %x[%at] : memref<{4 * WORDS}xi8>
      scf.yield
    }}
    case {LOAD_WORD} {{
      %e = memref.load %words[%at] : memref<{WORDS}xi32>
      scf.yield
    }}
    case {STORE_WORD} {{
      memref.store %word, %words[%at] : memref<{WORDS}xi32>
      scf.yield
    }}
    case {ADD_WORD} {{
      %c4 = arith.constant 4 : index
      %distance = arith.muli %at, %c4 : index
      %address = arith.addi %start, %distance : index
      %integer = arith.index_cast %address : index to i64
      %p = llvm.inttoptr %integer : i64 to !llvm.ptr
      %old = llvm.atomicrmw add %p, %word syncscope("device") monotonic {{alignment = 4 : i64}} : !llvm.ptr, i32
      scf.yield
    }}
    default {{
    }}
    %meet = memref.load %meets[%b, %s] : memref<?x{STEPS}xi1>
    scf.if %meet {{
      gpu.barrier
    }}
  }}
  gpu.return
}}
"""


@pytest.mark.parametrize(("seed", "cooperative"), [(0, False), (0, True), (1, True), (2, False)])
def test_exactly_the_racing_programs_fail(seed: int, cooperative: bool) -> None:
    kernel = Kernel(INTERPRETER, seed=seed)
    random = np.random.default_rng(seed)
    racing = 0
    for _ in range(150):
        blocks, threads = random.integers(1, 4, 2).tolist()
        script = np.zeros((blocks * threads, STEPS, 2), np.int64)
        # Few operations, or every program races.
        script[..., 0] = random.integers(1, 6, script.shape[:2]) * (random.random(script.shape[:2]) < 0.25)
        is_byte = np.isin(script[..., 0], (LOAD_BYTE, STORE_BYTE))
        script[..., 1] = random.integers(0, np.where(is_byte, 4 * WORDS, WORDS))
        meets = random.random((blocks, STEPS)) < 0.5
        expected = _races(script, meets, threads)
        racing += expected
        try:
            kernel(np.zeros(4 * WORDS, np.uint8), script, meets, grid=blocks, block=threads, cooperative=cooperative)
            found = False
        except EmulationError as error:
            assert "data race" in str(error)
            found = True
        assert found == expected, (script, meets)
    assert 20 < racing < 130


def _races(script: np.ndarray, meets: np.ndarray, threads: int) -> bool:
    """Whether two threads touch a byte, at least one to write it, not both atomically, and no barrier is between."""
    accesses = []
    for thread, step in np.ndindex(*script.shape[:2]):
        op, at = script[thread, step].tolist()
        if op != NOTHING:
            block = thread // threads
            first, size = (at, 1) if op in (LOAD_BYTE, STORE_BYTE) else (4 * at, 4)
            accesses.append((thread, block, meets[block, :step].sum(), op, set(range(first, first + size))))
    return any(
        a[0] != b[0]
        and a[4] & b[4]
        and (a[3] in WRITES or b[3] in WRITES)
        and not a[3] == b[3] == ADD_WORD
        and (a[1] != b[1] or a[2] == b[2])
        for a, b in itertools.combinations(accesses, 2)
    )
