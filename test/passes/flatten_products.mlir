// RUN: parc-opt %s --parc-flatten-products --canonicalize | filecheck %s

// A batch of products with one weight is one product of all rows.

// CHECK: func.func @main(%[[X:[a-z0-9]+]]: tensor<4x2x8xf32>, %[[W:[a-z0-9]+]]: tensor<8x32xf32>
// CHECK: %[[ROWS:.*]] = tensor.collapse_shape %[[X]]{{.*}} into tensor<8x8xf32>
// CHECK: linalg.matmul ins(%[[ROWS]], %[[W]] : tensor<8x8xf32>, tensor<8x32xf32>)
// CHECK: tensor.expand_shape {{.*}} tensor<8x32xf32> into tensor<4x2x32xf32>
// CHECK-NOT: linalg.batch_matmul
func.func @main(%x: tensor<4x2x8xf32>, %w: tensor<8x32xf32>, %init: tensor<4x2x32xf32>) -> tensor<4x2x32xf32> {
  %e = tensor.empty() : tensor<4x8x32xf32>
  %ws = linalg.broadcast ins(%w : tensor<8x32xf32>) outs(%e : tensor<4x8x32xf32>) dimensions = [0]
  %p = linalg.batch_matmul ins(%x, %ws : tensor<4x2x8xf32>, tensor<4x8x32xf32>) outs(%init : tensor<4x2x32xf32>) -> tensor<4x2x32xf32>
  return %p : tensor<4x2x32xf32>
}

// A weight for each element of the batch is left alone.

// CHECK: func.func @weights
// CHECK: linalg.batch_matmul
func.func @weights(%x: tensor<4x2x8xf32>, %ws: tensor<4x8x32xf32>, %init: tensor<4x2x32xf32>) -> tensor<4x2x32xf32> {
  %p = linalg.batch_matmul ins(%x, %ws : tensor<4x2x8xf32>, tensor<4x8x32xf32>) outs(%init : tensor<4x2x32xf32>) -> tensor<4x2x32xf32>
  return %p : tensor<4x2x32xf32>
}
