// RUN: parc-opt %s --parc-distribute-team --canonicalize --split-input-file | filecheck %s

// Each thread runs its share of a parallel loop; before what reads the result of others there is a barrier.

// CHECK: func.func private @parc_team_barrier()
// CHECK: func.func @main(%[[ME:[a-z0-9]+]]: index {{.*}}, %[[THREADS:[a-z0-9]+]]: index {{.*}}, %[[X:[a-z0-9]+]]: memref<?xf32>, %[[Y:[a-z0-9]+]]: memref<?xf32>
// CHECK-NOT: scf.parallel
// CHECK: arith.muli %[[ME]]
// CHECK: arith.divui %{{.*}}, %[[THREADS]]
// CHECK: scf.for
// CHECK: memref.store %{{.*}}, %[[X]]
// CHECK: call @parc_team_barrier()
// CHECK: scf.for
// CHECK: memref.load %[[X]]
// CHECK: memref.store %{{.*}}, %[[Y]]
func.func @main(%tid: index {parc.kind = "thread"}, %nthreads: index {parc.kind = "threads"}, %x: memref<?xf32>, %y: memref<?xf32>, %n: index) {
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

// Loops on different buffers need no barrier between them.

// CHECK: func.func @main
// CHECK-NOT: call @parc_team_barrier()
// CHECK: return
func.func @main(%tid: index {parc.kind = "thread"}, %nthreads: index {parc.kind = "threads"}, %x: memref<?xf32>, %y: memref<?xf32>, %n: index) {
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

// What is not parallel is done by thread 0, and a team's body stays as it is, between barriers.

// CHECK: func.func @main(%[[ME:[a-z0-9]+]]: index {{.*}}, %[[THREADS:[a-z0-9]+]]: index
// CHECK: %[[FIRST:.*]] = arith.cmpi eq, %[[ME]], %{{.*}} : index
// CHECK: scf.if %[[FIRST]] {
// CHECK: memref.store
// CHECK: call @parc_team_barrier()
// CHECK-NOT: parc.team
// CHECK: memref.store %{{.*}}, %{{.*}}[%[[ME]]]
// CHECK: call @parc_team_barrier()
// CHECK-NOT: parc.barrier
// CHECK: memref.load %{{.*}}[%{{.*}}]
func.func @main(%tid: index {parc.kind = "thread"}, %nthreads: index {parc.kind = "threads"}, %x: memref<?xf32>, %y: memref<f32>) {
  %c0 = arith.constant 0 : index
  %one = arith.constant 1.0 : f32
  memref.store %one, %y[] : memref<f32>
  "parc.team"() ({
  ^bb0(%me: index, %size: index):
    %v = memref.load %y[] : memref<f32>
    memref.store %v, %x[%me] : memref<?xf32>
    "parc.barrier"() : () -> ()
    %w = memref.load %x[%c0] : memref<?xf32>
    memref.store %w, %x[%me] : memref<?xf32>
  }) : () -> ()
  return
}

// -----

// To wait for some members of the team, a thread waits for all.

// CHECK: func.func @main
// CHECK: memref.store
// CHECK-NEXT: call @parc_team_barrier()
// CHECK-NEXT: memref.load
// CHECK-NOT: parc.arrive
// CHECK-NOT: parc.await
func.func @main(%tid: index {parc.kind = "thread"}, %nthreads: index {parc.kind = "threads"}, %x: memref<?xindex>, %y: memref<?xindex>) {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %first = arith.constant 1 : i64
  "parc.team"() ({
  ^bb0(%me: index, %size: index):
    memref.store %me, %x[%me] : memref<?xindex>
    "parc.arrive"() : () -> ()
    "parc.await"(%c1, %first) : (index, i64) -> ()
    %v = memref.load %x[%c0] : memref<?xindex>
    memref.store %v, %y[%me] : memref<?xindex>
  }) : () -> ()
  return
}
