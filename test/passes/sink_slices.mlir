// RUN: parc-opt %s --parc-sink-slices --canonicalize --cse | filecheck %s

// A slice of a product of stacked steps needs one of the steps only.

// CHECK: func.func @main(%[[A:[a-z0-9]+]]: tensor<2x8xf32>, %[[B:[a-z0-9]+]]: tensor<2x8xf32>, %[[W:[a-z0-9]+]]: tensor<8x32xf32>
// CHECK-NOT: tensor.concat
// CHECK: linalg.matmul ins(%[[B]], %[[W]] : tensor<2x8xf32>, tensor<8x32xf32>)
// CHECK-NOT: linalg.matmul
// CHECK: return
func.func @main(%a: tensor<2x8xf32>, %b: tensor<2x8xf32>, %w: tensor<8x32xf32>, %init: tensor<4x32xf32>) -> tensor<2x32xf32> {
  %ab = tensor.concat dim(0) %a, %b : (tensor<2x8xf32>, tensor<2x8xf32>) -> tensor<4x8xf32>
  %p = linalg.matmul ins(%ab, %w : tensor<4x8xf32>, tensor<8x32xf32>) outs(%init : tensor<4x32xf32>) -> tensor<4x32xf32>
  %s = tensor.extract_slice %p[2, 0] [2, 32] [1, 1] : tensor<4x32xf32> to tensor<2x32xf32>
  return %s : tensor<2x32xf32>
}

// A gate taken out of a fused product would cut the weight: it stays a slice of the product.

// CHECK: func.func @gate
// CHECK: %[[P:.*]] = linalg.matmul ins({{.*}} : tensor<2x8xf32>, tensor<8x32xf32>)
// CHECK: tensor.extract_slice %[[P]][0, 8] [2, 8] [1, 1]
func.func @gate(%x: tensor<2x8xf32>, %w: tensor<8x32xf32> {parc.kind = "parameter"}, %init: tensor<2x32xf32>) -> tensor<2x8xf32> {
  %p = linalg.matmul ins(%x, %w : tensor<2x8xf32>, tensor<8x32xf32>) outs(%init : tensor<2x32xf32>) -> tensor<2x32xf32>
  %s = tensor.extract_slice %p[0, 8] [2, 8] [1, 1] : tensor<2x32xf32> to tensor<2x8xf32>
  return %s : tensor<2x8xf32>
}

// Where the pieces of a concatenation end is not known: the slice stays where it is.

// CHECK: func.func @pieces_of_unknown_sizes
// CHECK: %[[AB:.*]] = tensor.concat
// CHECK: tensor.extract_slice %[[AB]][0, 5] [2, 1] [1, 1]
func.func @pieces_of_unknown_sizes(%a: tensor<2x?xf32>, %b: tensor<2x?xf32>) -> tensor<2x1xf32> {
  %ab = tensor.concat dim(1) %a, %b : (tensor<2x?xf32>, tensor<2x?xf32>) -> tensor<2x6xf32>
  %s = tensor.extract_slice %ab[0, 5] [2, 1] [1, 1] : tensor<2x6xf32> to tensor<2x1xf32>
  return %s : tensor<2x1xf32>
}
