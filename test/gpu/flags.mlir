// RUN: parc-opt %s --emit=ptx --arch=sm_80 --ptxas-info | filecheck %s
// RUN: parc-opt %s --emit=ptx --arch=sm_90 --ptxas-info | filecheck %s
// RUN: parc-opt %s --emit=ptx --arch=sm_100 --ptxas-info | filecheck %s

// How blocks wait for each other: a flag with acquire and release, and a counter with both.
gpu.module @flags {
  // CHECK: .visible .entry wait_for_flag(
  // CHECK: bar.sync 0;
  // CHECK: st.release.gpu.global.b32
  // CHECK: [[LOOP:\$L.*]]:
  // CHECK-NEXT: ld.acquire.gpu.global.b32
  // CHECK: bra [[LOOP]];
  // CHECK: bar.sync 0;
  gpu.func @wait_for_flag(%flags: memref<?xi32>, %mine: index, %other: index) kernel
      attributes {known_block_size = array<i32: 64, 1, 1>} {
    %one = arith.constant 1 : i32
    %four = arith.constant 4 : index
    %thread = gpu.thread_id x
    %zero = arith.constant 0 : index
    %first = arith.cmpi eq, %thread, %zero : index
    %base = memref.extract_aligned_pointer_as_index %flags : memref<?xi32> -> index
    %a = arith.muli %mine, %four : index
    %b = arith.muli %other, %four : index
    %c = arith.addi %base, %a : index
    %d = arith.addi %base, %b : index
    %e = arith.index_cast %c : index to i64
    %f = arith.index_cast %d : index to i64
    %p = llvm.inttoptr %e : i64 to !llvm.ptr
    %q = llvm.inttoptr %f : i64 to !llvm.ptr
    gpu.barrier
    scf.if %first {
      llvm.store %one, %p atomic syncscope("device") release {alignment = 4 : i64} : i32, !llvm.ptr
      scf.while : () -> () {
        %flag = llvm.load %q atomic syncscope("device") acquire {alignment = 4 : i64} : !llvm.ptr -> i32
        %waiting = arith.cmpi slt, %flag, %one : i32
        scf.condition(%waiting)
      } do {
        scf.yield
      }
    }
    gpu.barrier
    gpu.return
  }

  // LLVM makes an atomic update a relaxed one: the fences order it. A compare-and-exchange orders memory itself.
  // CHECK: .visible .entry count(
  // CHECK: fence.acq_rel.gpu;
  // CHECK-NEXT: atom.global.add.u32
  // CHECK-NEXT: fence.acq_rel.gpu;
  // CHECK-NOT: fence
  // CHECK: atom.global.add.u32
  // CHECK-NOT: fence
  // CHECK: atom.acq_rel.gpu.global.cas.b32
  // CHECK-NOT: fence
  // CHECK: ret;
  gpu.func @count(%counter: memref<i32>, %old: memref<2xi32>) kernel
      attributes {known_block_size = array<i32: 32, 1, 1>} {
    %zero = arith.constant 0 : index
    %next = arith.constant 1 : index
    %one = arith.constant 1 : i32
    %base = memref.extract_aligned_pointer_as_index %counter : memref<i32> -> index
    %address = arith.index_cast %base : index to i64
    %p = llvm.inttoptr %address : i64 to !llvm.ptr
    %ordered = llvm.atomicrmw add %p, %one syncscope("device") acq_rel {alignment = 4 : i64} : !llvm.ptr, i32
    memref.store %ordered, %old[%zero] : memref<2xi32>
    %relaxed = llvm.atomicrmw add %p, %one syncscope("device") monotonic {alignment = 4 : i64} : !llvm.ptr, i32
    memref.store %relaxed, %old[%next] : memref<2xi32>
    %exchanged = llvm.cmpxchg %p, %relaxed, %one syncscope("device") acq_rel acquire {alignment = 4 : i64} : !llvm.ptr, i32
    %found = llvm.extractvalue %exchanged[0] : !llvm.struct<(i32, i1)>
    memref.store %found, %old[%zero] : memref<2xi32>
    gpu.return
  }
}
