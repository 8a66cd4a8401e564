// RUN: parc-opt %s --parc-plan-buffers --canonicalize --cse --split-input-file --verify-diagnostics
// RUN: not parc-opt %s --parc-plan-buffers --canonicalize --cse --split-input-file 2>%t | filecheck %s

// Buffers that are in use at the same time get places of their own in the arena, behind its first 64 bytes; one that is
// needed later shares the place of one that is not needed any more.

// CHECK: func.func @main(%{{.*}}: index {parc.kind = "thread"}, %{{.*}}: index {parc.kind = "threads"}, %[[ARENA:[a-z0-9]+]]: memref<?xi8> {parc.kind = "arena"}
// CHECK-NOT: memref.alloc
// CHECK: llvm.inline_asm "", "=r,0" %c64
// CHECK: %[[A:.*]] = memref.view %[[ARENA]][%{{.*}}][] : memref<?xi8> to memref<16xf32>
// CHECK: llvm.inline_asm "", "=r,0" %c128
// CHECK: %[[B:.*]] = memref.view %[[ARENA]][%{{.*}}][] : memref<?xi8> to memref<16xf32>
// CHECK: linalg.exp ins(%{{.*}}) outs(%[[A]] :
// CHECK: linalg.exp ins(%[[A]] : memref<16xf32>) outs(%[[B]] :
// CHECK: linalg.exp ins(%[[B]] : memref<16xf32>) outs(%[[A]] :
// CHECK: func.func @arena_size(%{{.*}}: index) -> index
// CHECK: return %c192 : index
func.func @main(%x: memref<16xf32>, %y: memref<16xf32> {parc.kind = "result"}) {
  %a = memref.alloc() : memref<16xf32>
  %b = memref.alloc() : memref<16xf32>
  %c = memref.alloc() : memref<16xf32>
  linalg.exp ins(%x : memref<16xf32>) outs(%a : memref<16xf32>)
  linalg.exp ins(%a : memref<16xf32>) outs(%b : memref<16xf32>)
  linalg.exp ins(%b : memref<16xf32>) outs(%c : memref<16xf32>)
  linalg.exp ins(%c : memref<16xf32>) outs(%y : memref<16xf32>)
  return
}

// -----

// In a loop over sweeps, too, buffers share places when one is no longer needed; what comes from outside is in use in
// all of the loop.

// CHECK: %[[A:.*]] = memref.view %{{.*}} to memref<16xf32>
// CHECK: %[[B:.*]] = memref.view %{{.*}} to memref<16xf32>
// CHECK: %[[C:.*]] = memref.view %{{.*}} to memref<16xf32>
// CHECK: } do {
// CHECK: linalg.exp ins(%[[A]] : memref<16xf32>) outs(%[[B]] :
// CHECK: linalg.exp ins(%[[B]] : memref<16xf32>) outs(%[[C]] :
// CHECK: linalg.exp ins(%[[C]] : memref<16xf32>) outs(%[[B]] :
// CHECK: linalg.copy ins(%[[B]] : memref<16xf32>) outs(%[[A]] :
// CHECK: return %c256 : index
func.func @main(%x: memref<16xf32>, %n: index, %y: memref<16xf32> {parc.kind = "result"}) {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %a = memref.alloc() : memref<16xf32>
  linalg.copy ins(%x : memref<16xf32>) outs(%a : memref<16xf32>)
  %k = scf.while (%i = %c0) : (index) -> index {
    %more = arith.cmpi slt, %i, %n : index
    scf.condition(%more) %i : index
  } do {
  ^bb0(%i: index):
    %b = memref.alloc() : memref<16xf32>
    %c = memref.alloc() : memref<16xf32>
    %d = memref.alloc() : memref<16xf32>
    linalg.exp ins(%a : memref<16xf32>) outs(%b : memref<16xf32>)
    linalg.exp ins(%b : memref<16xf32>) outs(%c : memref<16xf32>)
    linalg.exp ins(%c : memref<16xf32>) outs(%d : memref<16xf32>)
    linalg.copy ins(%d : memref<16xf32>) outs(%a : memref<16xf32>)
    %next = arith.addi %i, %c1 : index
    scf.yield %next : index
  }
  linalg.copy ins(%a : memref<16xf32>) outs(%y : memref<16xf32>)
  return
}

// -----

// The arena's size depends on the symbols; a buffer inside a team has a copy for each thread.

// CHECK: func.func @main(%[[ME:.*]]: index {parc.kind = "thread"}
// CHECK: arith.muli %[[ME]], %{{.*}} : index
// CHECK: memref.view %{{.*}}[%{{.*}}][%{{.*}}] : memref<?xi8> to memref<?xf32>
// CHECK: func.func @arena_size(%[[THREADS:.*]]: index, %[[T:.*]]: index) -> index
// CHECK: arith.muli %{{.*}}, %[[THREADS]] : index
func.func @main(%T: index {parc.kind = "symbol", parc.name = "T"}) {
  "parc.team"() ({
  ^bb0(%tid: index, %nthreads: index):
    %zero = arith.constant 0.0 : f32
    %a = memref.alloc(%T) : memref<?xf32>
    linalg.fill ins(%zero : f32) outs(%a : memref<?xf32>)
  }) : () -> ()
  return
}

// -----

// The size of every buffer is known before a call.

func.func @main(%n: memref<index>) {
  %size = memref.load %n[] : memref<index>
  // expected-error @below {{the size of this value is not a function of the inputs' sizes}}
  %a = memref.alloc(%size) : memref<?xf32>
  %zero = arith.constant 0.0 : f32
  linalg.fill ins(%zero : f32) outs(%a : memref<?xf32>)
  return
}
