// RUN: parc-opt %s --parc-lower-reductions --canonicalize --cse | filecheck %s

// The gradient of a weight: each thread computes parts of it, from blocks of both factors packed in its own buffers.

// CHECK: func.func @weight(%[[H:.*]]: memref<?x?x256xf32>, %[[D:.*]]: memref<?x?x1024xf32>, %[[U:.*]]: memref<256x1024xf32>)
// CHECK: "parc.team"() ({
// CHECK: ^bb0(%[[TID:.*]]: index, %[[NTHREADS:.*]]: index):
// CHECK-DAG: memref.reinterpret_cast %[[H]]
// CHECK-DAG: memref.reinterpret_cast %[[D]]
// CHECK-DAG: memref.reinterpret_cast %[[U]]
// CHECK-COUNT-2: memref.alloc()
// CHECK: arith.muli %[[TID]]
// CHECK: arith.divui %{{.*}}, %[[NTHREADS]]
// CHECK: scf.for
// CHECK: call @contract_f32_2(
func.func @weight(%h: memref<?x?x256xf32>, %d: memref<?x?x1024xf32>, %u: memref<256x1024xf32>) {
  linalg.contract indexing_maps = [affine_map<(k, n, t, b) -> (t, b, k)>, affine_map<(k, n, t, b) -> (t, b, n)>,
      affine_map<(k, n, t, b) -> (k, n)>]
      ins(%h, %d : memref<?x?x256xf32>, memref<?x?x1024xf32>) outs(%u : memref<256x1024xf32>)
  return
}

// The gradient of a bias: sums of parts of the rows, and then the sum of these.

// CHECK: func.func @bias(%[[D:.*]]: memref<?x?x64xf32>, %[[B:.*]]: memref<64xf32>)
// CHECK: %[[PARTS:.*]] = memref.alloc() {{.*}} : memref<64x64xf32>
// CHECK: scf.parallel
// CHECK: vector.store %{{.*}}, %[[PARTS]]
// CHECK: vector.load %[[D]]
// CHECK: arith.addf
// CHECK: vector.store %{{.*}}, %[[PARTS]]
// CHECK: scf.parallel
// CHECK: vector.load %[[B]]
// CHECK: scf.for
// CHECK: vector.load %[[PARTS]]
// CHECK: vector.store %{{.*}}, %[[B]]
func.func @bias(%d: memref<?x?x64xf32>, %b: memref<64xf32>) {
  linalg.generic {indexing_maps = [affine_map<(n, t, b) -> (t, b, n)>, affine_map<(n, t, b) -> (n)>],
      iterator_types = ["parallel", "reduction", "reduction"]} ins(%d : memref<?x?x64xf32>) outs(%b : memref<64xf32>) {
  ^bb0(%x: f32, %s: f32):
    %t = arith.addf %s, %x : f32
    linalg.yield %t : f32
  }
  return
}

// Products that are too small, and sums of few rows, stay.

// CHECK: func.func @small
// CHECK: linalg.generic
// CHECK: linalg.generic
func.func @small(%x: memref<8x16xf32>, %y: memref<16x32xf32>, %z: memref<8x32xf32>, %s: memref<16xf32>) {
  linalg.matmul ins(%x, %y : memref<8x16xf32>, memref<16x32xf32>) outs(%z : memref<8x32xf32>)
  linalg.reduce { arith.addf } ins(%x : memref<8x16xf32>) outs(%s : memref<16xf32>) dimensions = [0]
  return
}

// Inside a team, the thread that is there does all of it.

// CHECK: func.func @inside
// CHECK: "parc.team"
// CHECK-NOT: "parc.team"
// CHECK: call @contract_f64_1(
// CHECK: return

// Of the functions, there is one for each type and number of reductions.

// CHECK: func.func private @contract_f32_2(
// CHECK-SAME: attributes {llvm.no_inline}
// CHECK: call @pack_f32_{{[0-9]+}}(
// CHECK: call @pack_f32_{{[0-9]+}}(
// CHECK: call @multiply_f32(
// CHECK: func.func private @multiply_f32(
// CHECK: vector.fma
func.func @inside(%x: memref<?x64xf64>, %y: memref<64x64xf64>, %z: memref<?x64xf64>) {
  "parc.team"() ({
  ^bb0(%tid: index, %nthreads: index):
    linalg.matmul ins(%x, %y : memref<?x64xf64>, memref<64x64xf64>) outs(%z : memref<?x64xf64>)
  }) : () -> ()
  return
}
