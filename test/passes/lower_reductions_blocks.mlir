// RUN: parc-opt %s --parc-lower-reductions=target=sm_90 | filecheck %s

// Blocks take squares of a product in turns, from squares of the factors in shared memory.

// CHECK: func.func @outside
// CHECK-NOT: linalg.
// CHECK: "parc.team"() ({
// CHECK: ^bb0(%[[ME:[a-z0-9]+]]: index, %[[BLOCKS:[a-z0-9]+]]: index):
// CHECK: memref.alloc() : memref<1056xf32, #gpu.address_space<workgroup>>
// CHECK: scf.for %{{.*}} = %[[ME]] to %{{.*}} step %[[BLOCKS]]
// CHECK-NEXT: func.call @contract_
func.func @outside(%a: memref<?x?xf32>, %b: memref<?x?xf32>, %c: memref<?x?xf32>) {
  linalg.matmul ins(%a, %b : memref<?x?xf32>, memref<?x?xf32>) outs(%c : memref<?x?xf32>)
  return
}

// In a team a block computes what its members do, and shared memory has been given out: the product stays.

// CHECK: func.func @inside
// CHECK: "parc.team"()
// CHECK-NOT: parc.team
// CHECK: linalg.generic
// CHECK-SAME: "reduction"
func.func @inside(%a: memref<?x?xf32>, %b: memref<?x?xf32>, %c: memref<?x?xf32>) {
  "parc.team"() ({
  ^bb0(%me: index, %members: index):
    linalg.matmul ins(%a, %b : memref<?x?xf32>, memref<?x?xf32>) outs(%c : memref<?x?xf32>)
  }) : () -> ()
  return
}
