// RUN: parc-opt %s --parc-lower-linalg --canonicalize | filecheck %s

// Elementwise work becomes parallel loops over vectors.

// CHECK: func.func @main
// CHECK-NOT: linalg.
// CHECK: scf.parallel
// CHECK: vector.load
// CHECK: arith.addf %{{.*}} : vector<
// CHECK: vector.store
func.func @main(%x: memref<?x64xf32>, %y: memref<?x64xf32>, %z: memref<?x64xf32>) {
  linalg.add ins(%x, %y : memref<?x64xf32>, memref<?x64xf32>) outs(%z : memref<?x64xf32>)
  return
}

// A transpose has no dimension that is contiguous on both sides.

// CHECK: func.func @transpose
// CHECK-NOT: linalg.
// CHECK: scf.parallel
func.func @transpose(%x: memref<8x4xf32>, %y: memref<4x8xf32>) {
  linalg.transpose ins(%x : memref<8x4xf32>) outs(%y : memref<4x8xf32>) permutation = [1, 0]
  return
}

// Copies take part; one onto itself disappears.

// CHECK: func.func @copies
// CHECK-NOT: memref.copy
// CHECK: scf.parallel
// CHECK-NOT: scf.parallel
// CHECK: return
func.func @copies(%x: memref<16x32xf32>, %y: memref<16x32xf32>) {
  memref.copy %x, %y : memref<16x32xf32> to memref<16x32xf32>
  memref.copy %x, %x : memref<16x32xf32> to memref<16x32xf32>
  return
}
