// RUN: parc-opt %s --parc-distribute-grid="target=sm_90 blocks=3" --canonicalize --split-input-file | filecheck %s
// RUN: parc-opt %s --parc-distribute-grid="target=sm_90 blocks=3 form=waves" --canonicalize --split-input-file \
// RUN:   | filecheck %s --check-prefix=WAVES

// One launch, whose blocks wait for each other between the loops; each thread of the grid takes a share of a loop.
// As waves there are two launches, and nobody waits.

// CHECK: module attributes {gpu.container_module, {{.*}}parc.blocks = 3 : i64
// CHECK: func.func @main(%{{.*}}: index {{.*}}, %[[BLOCKS:[a-z0-9]+]]: index {{.*}}, %[[ARENA:[a-z0-9]+]]: memref<?xi8>
// CHECK: gpu.launch_func @main_kernel::@main_kernel blocks in (%[[BLOCKS]], %c1, %c1) threads in (%c256, %c1, %c1)
// CHECK-SAME: {parc.cooperative}
// CHECK-NOT: gpu.launch_func
// CHECK: gpu.module @main_kernel
// CHECK: gpu.func @main_kernel(
// CHECK-SAME: kernel
// CHECK: %[[BLOCK:.*]] = gpu.block_id x
// CHECK: %[[THREAD:.*]] = gpu.thread_id x
// CHECK: arith.muli %[[BLOCK]], %{{.*}} : index
// CHECK: scf.for
// CHECK: memref.store
// CHECK: func.call @grid_barrier(
// CHECK: scf.for
// CHECK: memref.load
// CHECK: func.call @leave_grid(
// CHECK: gpu.return
// CHECK-DAG: func.func private @grid_barrier(
// CHECK-DAG: llvm.atomicrmw add %{{.*}} syncscope("device") acq_rel

// WAVES: func.func @main
// WAVES: gpu.launch_func @main_kernel{{(_0)?}}::@{{.*}} args({{[^)]*}}){{$}}
// WAVES-NEXT: gpu.launch_func @main_kernel{{(_0)?}}::@{{.*}} args({{[^)]*}}){{$}}
// WAVES-NEXT: return
func.func @main(%tid: index {parc.kind = "thread"}, %nthreads: index {parc.kind = "threads"},
    %arena: memref<?xi8> {parc.kind = "arena"}, %x: memref<?xf32>, %y: memref<?xf32>, %n: index) {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %one = arith.constant 1.0 : f32
  scf.parallel (%i) = (%c0) to (%n) step (%c1) {
    memref.store %one, %x[%i] : memref<?xf32>
  }
  scf.parallel (%i) = (%c0) to (%n) step (%c1) {
    %last = arith.subi %n, %c1 : index
    %j = arith.subi %last, %i : index
    %v = memref.load %x[%j] : memref<?xf32>
    memref.store %v, %y[%i] : memref<?xf32>
  }
  return
}

// -----

// Blocks that need not wait need not be there together.

// WAVES: func.func @main
// CHECK: func.func @main
// CHECK: gpu.launch_func {{.*}} args({{[^)]*}}){{$}}
// CHECK-NEXT: return
// CHECK: scf.for
// CHECK: memref.store
// CHECK-NEXT: }
// CHECK-NEXT: scf.for
func.func @main(%tid: index {parc.kind = "thread"}, %nthreads: index {parc.kind = "threads"},
    %arena: memref<?xi8> {parc.kind = "arena"}, %x: memref<?xf32>, %y: memref<?xf32>, %n: index) {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %one = arith.constant 1.0 : f32
  scf.parallel (%i) = (%c0) to (%n) step (%c1) {
    memref.store %one, %x[%i] : memref<?xf32>
  }
  scf.parallel (%i) = (%c0) to (%n) step (%c1) {
    memref.store %one, %y[%i] : memref<?xf32>
  }
  return
}

// -----

// A member of a team is a block: all of its threads run what is called; between two calls that meet in memory they wait
// for each other, and blocks where the team does. As waves the loop around the barrier is the host's.

// CHECK: gpu.func @main_kernel(
// CHECK: %[[BLOCK:.*]] = gpu.block_id x
// CHECK: scf.for
// CHECK-NEXT: func.call @work(%[[BLOCK]], %{{.*}})
// CHECK-NEXT: gpu.barrier
// CHECK-NEXT: func.call @work(%[[BLOCK]], %{{.*}})
// CHECK-NEXT: func.call @grid_barrier(

// WAVES: func.func @main
// WAVES: scf.for
// WAVES-NEXT: gpu.launch_func
// WAVES-NEXT: }
// WAVES: gpu.func @main_kernel(
// WAVES: func.call @work(
// WAVES-NEXT: gpu.barrier
// WAVES-NEXT: func.call @work(
// WAVES-NEXT: gpu.return
func.func private @work(%me: index, %x: memref<?xf32>) {
  %one = arith.constant 1.0 : f32
  %thread = gpu.thread_id x
  memref.store %one, %x[%thread] : memref<?xf32>
  return
}
func.func @main(%tid: index {parc.kind = "thread"}, %nthreads: index {parc.kind = "threads"},
    %arena: memref<?xi8> {parc.kind = "arena"}, %x: memref<?xf32>, %n: index) {
  "parc.team"() ({
  ^bb0(%me: index, %members: index):
    %c0 = arith.constant 0 : index
    %c1 = arith.constant 1 : index
    scf.for %i = %c0 to %n step %c1 {
      func.call @work(%me, %x) : (index, memref<?xf32>) -> ()
      func.call @work(%me, %x) : (index, memref<?xf32>) -> ()
      "parc.barrier"() : () -> ()
    }
  }) : () -> ()
  return
}

// -----

// Crews wait by flags: each block counts how often it has arrived. Shared memory of a team is cut out of the block's.

// CHECK: gpu.launch_func {{.*}} dynamic_shared_memory_size %c640_i32 {{.*}}{parc.cooperative}
// CHECK: gpu.func @main_kernel(
// CHECK-DAG: %[[COUNT:.*]] = memref.alloca() : memref<1xi32>
// CHECK-DAG: %[[MEMORY:.*]] = gpu.dynamic_shared_memory : memref<?xi8, #gpu.address_space<workgroup>>
// CHECK: memref.view %[[MEMORY]][%{{.*}}][] : {{.*}} to memref<100xf32, #gpu.address_space<workgroup>>
// CHECK: memref.view %[[MEMORY]][%{{.*}}][] : {{.*}} to memref<8xf64, #gpu.address_space<workgroup>>
// CHECK: func.call @arrive(%{{.*}}, %[[COUNT]])
// CHECK: func.call @await(%{{.*}}, %[[COUNT]], %{{.*}}, %{{.*}})
// CHECK-DAG: func.func private @arrive(
// CHECK-DAG: llvm.store %{{.*}} atomic syncscope("device") release
// CHECK-DAG: func.func private @await(
// CHECK-DAG: llvm.load %{{.*}} atomic syncscope("device") acquire
func.func @main(%tid: index {parc.kind = "thread"}, %nthreads: index {parc.kind = "threads"},
    %arena: memref<?xi8> {parc.kind = "arena"}, %x: memref<?xf32>) {
  "parc.team"() ({
  ^bb0(%me: index, %members: index):
    %c0 = arith.constant 0 : index
    %both = arith.constant 3 : i64
    %a = memref.alloc() : memref<100xf32, #gpu.address_space<workgroup>>
    %b = memref.alloc() : memref<8xf64, #gpu.address_space<workgroup>>
    %v = memref.load %a[%c0] : memref<100xf32, #gpu.address_space<workgroup>>
    %w = memref.load %b[%c0] : memref<8xf64, #gpu.address_space<workgroup>>
    %u = arith.truncf %w : f64 to f32
    %s = arith.addf %v, %u : f32
    scf.parallel (%i) = (%c0) to (%members) step (%members) {
      memref.store %s, %x[%me] : memref<?xf32>
    }
    "parc.arrive"() : () -> ()
    "parc.await"(%members, %both) : (index, i64) -> ()
  }) : () -> ()
  return
}

// -----

// A member's part of the arena is that of the block.

// WAVES: func.func @main
// CHECK: func.func @main
// CHECK: gpu.func @main_kernel(
// CHECK: %[[BLOCK:.*]] = gpu.block_id x
// CHECK: %[[START:.*]] = arith.muli %[[BLOCK]], %{{.*}} : index
// CHECK: memref.view %{{.*}}[%[[START]]][] : memref<?xi8> to memref<8xf32>
// WAVES: %[[BLOCK:.*]] = gpu.block_id x
// WAVES: %[[START:.*]] = arith.muli %[[BLOCK]], %{{.*}} : index
// WAVES: memref.view %{{.*}}[%[[START]]][] : memref<?xi8> to memref<8xf32>
func.func @main(%tid: index {parc.kind = "thread"}, %nthreads: index {parc.kind = "threads"},
    %arena: memref<?xi8> {parc.kind = "arena"}) {
  %bytes = arith.constant 32 : index
  %start = arith.muli %tid, %bytes : index
  %a = memref.view %arena[%start][] : memref<?xi8> to memref<8xf32>
  "parc.team"() ({
  ^bb0(%me: index, %members: index):
    %c0 = arith.constant 0 : index
    %c1 = arith.constant 1 : index
    %c8 = arith.constant 8 : index
    %one = arith.constant 1.0 : f32
    scf.parallel (%i) = (%c0) to (%c8) step (%c1) {
      memref.store %one, %a[%i] : memref<8xf32>
    }
  }) : () -> ()
  return
}
