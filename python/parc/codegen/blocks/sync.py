"""Functions by which the blocks of a grid wait for each other; all threads of a block call them.

They count in the arena's header (`runtime/header.py`). Acquire and release at the scope of the device order everything
else: what a block wrote before it arrives is there for those who waited for it (PTX ISA, "Memory Consistency Model").
"""

from string import Template

from torch_mlir import ir

from parc.runtime.header import BARRIERS, FLAGS, LEAVERS

_FUNCTIONS = {
    # Every block takes a ticket; a round is over when there are as many tickets as blocks.
    "grid_barrier": """
func.func private @grid_barrier(%arena: memref<?xi8>) attributes {llvm.linkage = #llvm.linkage<internal>} {
  $address
  gpu.barrier
  scf.if %is_first {
    %offset = arith.constant $barriers : i64
    %place = arith.addi %address, %offset : i64
    %word = llvm.inttoptr %place : i64 to !llvm.ptr
    %ticket = llvm.atomicrmw add %word, %one syncscope("device") release : !llvm.ptr, i32
    %round = arith.divui %ticket, %blocks : i32
    %next = arith.addi %round, %one : i32
    %end = arith.muli %next, %blocks : i32
    $spin
  }
  gpu.barrier
  return
}""",
    "arrive": """
func.func private @arrive(%arena: memref<?xi8>, %count: memref<1xi32>)
    attributes {llvm.linkage = #llvm.linkage<internal>} {
  $address
  %old = memref.load %count[%c0] : memref<1xi32>
  %new = arith.addi %old, %one : i32
  memref.store %new, %count[%c0] : memref<1xi32>
  gpu.barrier
  scf.if %is_first {
    %word = func.call @flag(%address, %block) : (i64, index) -> !llvm.ptr
    llvm.store %new, %word atomic syncscope("device") release {alignment = 4 : i64} : i32, !llvm.ptr
  }
  return
}""",
    # Each thread waits for some blocks; the barrier passes on what they have acquired.
    "await": """
func.func private @await(%arena: memref<?xi8>, %count: memref<1xi32>, %size: index, %crews: i64)
    attributes {llvm.linkage = #llvm.linkage<internal>} {
  $address
  %end = memref.load %count[%c0] : memref<1xi32>
  %bits = arith.constant 64 : index
  %bit = arith.constant 1 : i64
  %stop = gpu.grid_dim x
  %step = gpu.block_dim x
  scf.for %i = %thread to %stop step %step {
    %crew = arith.divui %i, %size : index
    %counts = arith.cmpi ult, %crew, %bits : index
    %zero = arith.constant 0 : index
    %known = arith.select %counts, %crew, %zero : index
    %shift = arith.index_cast %known : index to i64
    %moved = arith.shrui %crews, %shift : i64
    %low = arith.andi %moved, %bit : i64
    %is_set = arith.cmpi eq, %low, %bit : i64
    %waits = arith.andi %counts, %is_set : i1
    scf.if %waits {
      %word = func.call @flag(%address, %i) : (i64, index) -> !llvm.ptr
      $spin
    }
  }
  gpu.barrier
  return
}""",
    # The last block to come leaves the header as it was found.
    "leave_grid": """
func.func private @leave_grid(%arena: memref<?xi8>) attributes {llvm.linkage = #llvm.linkage<internal>} {
  $address
  gpu.barrier
  scf.if %is_first {
    %zero = arith.constant 0 : i32
    %leavers = arith.constant $leavers : i64
    %barriers = arith.constant $barriers : i64
    %place = arith.addi %address, %leavers : i64
    %word = llvm.inttoptr %place : i64 to !llvm.ptr
    %ticket = llvm.atomicrmw add %word, %one syncscope("device") acq_rel : !llvm.ptr, i32
    %next = arith.addi %ticket, %one : i32
    %is_last = arith.cmpi eq, %next, %blocks : i32
    scf.if %is_last {
      %stop = gpu.grid_dim x
      %c1 = arith.constant 1 : index
      scf.for %i = %c0 to %stop step %c1 {
        %flag = func.call @flag(%address, %i) : (i64, index) -> !llvm.ptr
        llvm.store %zero, %flag atomic syncscope("device") release {alignment = 4 : i64} : i32, !llvm.ptr
      }
      %other = arith.addi %address, %barriers : i64
      %count = llvm.inttoptr %other : i64 to !llvm.ptr
      llvm.store %zero, %count atomic syncscope("device") release {alignment = 4 : i64} : i32, !llvm.ptr
      llvm.store %zero, %word atomic syncscope("device") release {alignment = 4 : i64} : i32, !llvm.ptr
    }
  }
  return
}""",
    "flag": """
func.func private @flag(%address: i64, %block: index) -> !llvm.ptr attributes {llvm.linkage = #llvm.linkage<internal>} {
  %start = arith.constant $flags : i64
  %bytes = arith.constant 4 : index
  %offset = arith.muli %block, %bytes : index
  %distance = arith.index_cast %offset : index to i64
  %first = arith.addi %address, %start : i64
  %place = arith.addi %first, %distance : i64
  %word = llvm.inttoptr %place : i64 to !llvm.ptr
  return %word : !llvm.ptr
}""",
}
_ADDRESS = """
  %c0 = arith.constant 0 : index
  %one = arith.constant 1 : i32
  %thread = gpu.thread_id x
  %block = gpu.block_id x
  %grid = gpu.grid_dim x
  %blocks = arith.index_cast %grid : index to i32
  %is_first = arith.cmpi eq, %thread, %c0 : index
  %start = memref.extract_aligned_pointer_as_index %arena : memref<?xi8> -> index
  %address = arith.index_cast %start : index to i64
"""
_SPIN = """
  scf.while : () -> () {
    %now = llvm.load %word atomic syncscope("device") acquire {alignment = 4 : i64} : !llvm.ptr -> i32
    %wait = arith.cmpi ult, %now, %end : i32
    scf.condition(%wait)
  } do {
    scf.yield
  }
"""
GRID_BARRIER, ARRIVE, AWAIT, LEAVE = "grid_barrier", "arrive", "await", "leave_grid"


def emit(module: ir.Module) -> None:
    """Add the functions to a module."""
    template = Template("\n".join(_FUNCTIONS.values()).replace("$address", _ADDRESS).replace("$spin", _SPIN))
    text = template.substitute(barriers=BARRIERS, leavers=LEAVERS, flags=FLAGS)
    functions = ir.Operation.parse(f"module {{ {text} }}", source_name="grid_sync", context=module.context)
    for op in list(functions.regions[0].blocks[0].operations):
        module.body.append(op.operation.clone())
