// RUN: parc-opt %s --parc-lower-linalg=target=sm_90 --canonicalize | filecheck %s

// An element is a thread's: neighbours load neighbours, and there are no vectors.

// CHECK: func.func @add
// CHECK: scf.parallel (%{{.*}}, %{{.*}}) =
// CHECK-NOT: vector.
// CHECK: memref.load
// CHECK: arith.addf %{{.*}} : f32
// CHECK: memref.store
func.func @add(%x: memref<?x64xf32>, %y: memref<?x64xf32>, %z: memref<?x64xf32>) {
  linalg.add ins(%x, %y : memref<?x64xf32>, memref<?x64xf32>) outs(%z : memref<?x64xf32>)
  return
}

// Sums are one thread's, term after term.

// CHECK: func.func @product
// CHECK: scf.parallel (%{{.*}}, %{{.*}}) =
// CHECK: scf.for
// CHECK: memref.load
// CHECK: arith.mulf
// CHECK: arith.addf
// CHECK: memref.store
func.func @product(%a: memref<?x?xf32>, %b: memref<?x?xf32>, %c: memref<?x?xf32>) {
  linalg.matmul ins(%a, %b : memref<?x?xf32>, memref<?x?xf32>) outs(%c : memref<?x?xf32>)
  return
}

// CHECK: func.func @transpose
// CHECK: scf.parallel (%{{.*}}, %{{.*}}) =
// CHECK-NOT: vector.
// CHECK: memref.store
func.func @transpose(%x: memref<?x?xf32>, %y: memref<?x?xf32>) {
  linalg.transpose ins(%x : memref<?x?xf32>) outs(%y : memref<?x?xf32>) permutation = [1, 0]
  return
}

// A sum over rows: the threads share the columns, once.

// CHECK: func.func @columns
// CHECK: scf.parallel (%{{.*}}) =
// CHECK-NEXT: scf.for
func.func @columns(%x: memref<?x5xf32>, %y: memref<5xf32>) {
  linalg.generic {indexing_maps = [affine_map<(i, j) -> (i, j)>, affine_map<(i, j) -> (j)>], iterator_types = ["reduction", "parallel"]}
      ins(%x : memref<?x5xf32>) outs(%y : memref<5xf32>) {
  ^bb0(%a: f32, %b: f32):
    %s = arith.addf %a, %b : f32
    linalg.yield %s : f32
  }
  return
}
