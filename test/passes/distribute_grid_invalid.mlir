// RUN: parc-opt %s --parc-distribute-grid="target=sm_90 form=waves" --split-input-file --verify-diagnostics
// RUN: not parc-opt %s --parc-distribute-grid=target=cpu --split-input-file 2>&1 | filecheck %s --check-prefix=CPU
// RUN: not parc-opt %s --parc-distribute-grid=target=sm_12 --split-input-file 2>&1 | filecheck %s --check-prefix=ARCH
// RUN: not parc-opt %s --parc-distribute-grid=form=graph --split-input-file 2>&1 | filecheck %s --check-prefix=FORM

// CPU: error: distribute-grid is for thread blocks; distribute-team is for threads of the CPU
// ARCH: error: parc has no GPU architecture 'sm_12'; it has sm_80,
// FORM: error: GPU programs have no form 'graph': persistent, waves

// The host does not know what is in memory: it cannot go through a loop whose length is loaded.

func.func @main(%tid: index {parc.kind = "thread"}, %nthreads: index {parc.kind = "threads"},
    %arena: memref<?xi8> {parc.kind = "arena"}, %x: memref<?xf32>, %length: memref<index>) {
  "parc.team"() ({
  ^bb0(%me: index, %members: index):
    %c0 = arith.constant 0 : index
    %c1 = arith.constant 1 : index
    %one = arith.constant 1.0 : f32
    %n = memref.load %length[] : memref<index>
    // expected-error @below {{this program cannot be launched wave by wave: whether threads wait for each other depends on data}}
    scf.for %i = %c0 to %n step %c1 {
      scf.parallel (%j) = (%c0) to (%c1) step (%c1) {
        memref.store %one, %x[%me] : memref<?xf32>
      }
      "parc.barrier"() : () -> ()
    }
  }) : () -> ()
  return
}

// -----

// Nor can it hand a value on that one launch has loaded.

func.func @main(%tid: index {parc.kind = "thread"}, %nthreads: index {parc.kind = "threads"},
    %arena: memref<?xi8> {parc.kind = "arena"}, %x: memref<?xf32>) {
  "parc.team"() ({
  ^bb0(%me: index, %members: index):
    %c0 = arith.constant 0 : index
    %c1 = arith.constant 1 : index
    %v = memref.load %x[%c0] : memref<?xf32>
    "parc.barrier"() : () -> ()
    // expected-error @below {{this program cannot be launched wave by wave: a value is loaded before threads wait, and used after}}
    scf.parallel (%j) = (%c0) to (%c1) step (%c1) {
      memref.store %v, %x[%me] : memref<?xf32>
    }
  }) : () -> ()
  return
}

// -----

// Blocks meet at barriers that all of them come to.

func.func @main(%tid: index {parc.kind = "thread"}, %nthreads: index {parc.kind = "threads"},
    %arena: memref<?xi8> {parc.kind = "arena"}, %x: memref<?xf32>) {
  "parc.team"() ({
  ^bb0(%me: index, %members: index):
    %c0 = arith.constant 0 : index
    %c1 = arith.constant 1 : index
    %one = arith.constant 1.0 : f32
    %is_first = arith.cmpi eq, %me, %c0 : index
    // expected-error @below {{blocks wait for each other where not all of them come to}}
    scf.if %is_first {
      scf.parallel (%j) = (%c0) to (%c1) step (%c1) {
        memref.store %one, %x[%me] : memref<?xf32>
      }
      "parc.barrier"() : () -> ()
    }
  }) : () -> ()
  return
}

// -----

// A block has only so much shared memory.

func.func @main(%tid: index {parc.kind = "thread"}, %nthreads: index {parc.kind = "threads"},
    %arena: memref<?xi8> {parc.kind = "arena"}, %x: memref<?xf32>) {
  // expected-error @below {{a kernel needs 262144 bytes of shared memory; a block of sm_90 has 232448}}
  "parc.team"() ({
  ^bb0(%me: index, %members: index):
    %c0 = arith.constant 0 : index
    %a = memref.alloc() : memref<65536xf32, #gpu.address_space<workgroup>>
    %v = memref.load %a[%c0] : memref<65536xf32, #gpu.address_space<workgroup>>
    memref.store %v, %x[%me] : memref<?xf32>
  }) : () -> ()
  return
}
