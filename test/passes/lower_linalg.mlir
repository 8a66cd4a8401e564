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

// A transpose has no dimension that is contiguous on both sides: squares of vectors are transposed in registers.

// CHECK: func.func @squares
// CHECK: scf.parallel
// CHECK: scf.if
// CHECK: vector.load
// CHECK: vector.shuffle
// CHECK: vector.store
// CHECK: else
// CHECK: memref.load
// CHECK: memref.store
func.func @squares(%x: memref<?x?x?xf32>, %y: memref<?x?x?xf32>) {
  linalg.transpose ins(%x : memref<?x?x?xf32>) outs(%y : memref<?x?x?xf32>) permutation = [2, 0, 1]
  return
}

// So small a one is done element by element.

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

// A sum along contiguous elements adds up vectors, masks the last one, and then its lanes.

// CHECK: func.func @sums(%[[X:.*]]: memref<?x?xf32>, %[[Y:.*]]: memref<?xf32>)
// CHECK: scf.parallel
// CHECK: scf.for {{.*}} iter_args
// CHECK: vector.load %[[X]]
// CHECK: arith.addf %{{.*}}, %{{.*}} fastmath<contract> : vector<
// CHECK: vector.create_mask
// CHECK: vector.maskedload %[[X]]
// CHECK: vector.reduction <add>
// CHECK: memref.store %{{.*}}, %[[Y]]
func.func @sums(%x: memref<?x?xf32>, %y: memref<?xf32>) {
  linalg.generic {indexing_maps = [affine_map<(i, j) -> (i, j)>, affine_map<(i, j) -> (i)>],
      iterator_types = ["parallel", "reduction"]} ins(%x : memref<?x?xf32>) outs(%y : memref<?xf32>) {
  ^bb0(%a: f32, %o: f32):
    %s = arith.addf %o, %a : f32
    linalg.yield %s : f32
  }
  return
}

// In a product, four rows share the vectors of the right factor: four stores to one vector of columns.

// CHECK: func.func @product(%{{.*}}: memref<8x16xf32>, %{{.*}}: memref<16x32xf32>, %[[Z:.*]]: memref<8x32xf32>)
// CHECK: scf.parallel
// CHECK: scf.for {{.*}} iter_args
// CHECK-COUNT-4: vector.store %{{.*}}, %[[Z]]
// CHECK-NOT: vector.store
// CHECK: return
func.func @product(%x: memref<8x16xf32>, %y: memref<16x32xf32>, %z: memref<8x32xf32>) {
  linalg.matmul ins(%x, %y : memref<8x16xf32>, memref<16x32xf32>) outs(%z : memref<8x32xf32>)
  return
}

// Masked lanes must not divide by their zeros; elements of i1 have no vectors in memory.

// CHECK: func.func @scalars
// CHECK-NOT: vector<
// CHECK: return
func.func @scalars(%x: memref<?xi64>, %y: memref<?xi1>, %z: memref<?xi64>) {
  linalg.generic {indexing_maps = [affine_map<(i) -> (i)>, affine_map<(i) -> (i)>], iterator_types = ["parallel"]}
      ins(%x : memref<?xi64>) outs(%z : memref<?xi64>) {
  ^bb0(%a: i64, %o: i64):
    %c = arith.constant 7 : i64
    %r = arith.remsi %c, %a : i64
    linalg.yield %r : i64
  }
  linalg.copy ins(%y : memref<?xi1>) outs(%y : memref<?xi1>)
  return
}

// A row of a table is loaded as a vector where the index of the row is the same for all lanes.

// CHECK: func.func @rows(%[[TABLE:.*]]: memref<7x16xf32>, %[[INDICES:.*]]: memref<?xi64>, %{{.*}}: memref<?x16xf32>)
// CHECK: memref.load %[[INDICES]]
// CHECK: vector.load %[[TABLE]]
func.func @rows(%table: memref<7x16xf32>, %indices: memref<?xi64>, %y: memref<?x16xf32>) {
  linalg.generic {indexing_maps = [affine_map<(n, j) -> (n)>, affine_map<(n, j) -> (n, j)>],
      iterator_types = ["parallel", "parallel"]} ins(%indices : memref<?xi64>) outs(%y : memref<?x16xf32>) {
  ^bb0(%i: i64, %o: f32):
    %row = arith.index_cast %i : i64 to index
    %column = linalg.index 1 : index
    %v = memref.load %table[%row, %column] : memref<7x16xf32>
    linalg.yield %v : f32
  }
  return
}
