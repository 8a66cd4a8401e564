// RUN: parc-opt %s --parc-stack-slices | filecheck %s

// Only what was written last at each place counts, and what was there before where nothing was written.

// CHECK: func.func @main(%[[INIT:[a-z0-9]+]]: tensor<4x8xf32>, %[[A:[a-z0-9]+]]: tensor<1x8xf32>, %[[B:[a-z0-9]+]]: tensor<1x8xf32>, %[[C:[a-z0-9]+]]: tensor<1x8xf32>)
// CHECK: %[[GAP:.*]] = tensor.extract_slice %[[INIT]][2, 0] [2, 8] [1, 1]
// CHECK: %[[ALL:.*]] = tensor.concat dim(0) %[[C]], %[[B]], %[[GAP]]
// CHECK-NOT: tensor.insert_slice
// CHECK: return %[[ALL]]
func.func @main(%init: tensor<4x8xf32>, %a: tensor<1x8xf32>, %b: tensor<1x8xf32>, %c: tensor<1x8xf32>) -> tensor<4x8xf32> {
  %0 = tensor.insert_slice %a into %init[0, 0] [1, 8] [1, 1] : tensor<1x8xf32> into tensor<4x8xf32>
  %1 = tensor.insert_slice %b into %0[1, 0] [1, 8] [1, 1] : tensor<1x8xf32> into tensor<4x8xf32>
  %2 = tensor.insert_slice %c into %1[0, 0] [1, 8] [1, 1] : tensor<1x8xf32> into tensor<4x8xf32>
  return %2 : tensor<4x8xf32>
}

// Slices of two directions, and ones that overlap in part, stay as they are.

// CHECK: func.func @two_directions
// CHECK: tensor.insert_slice
// CHECK: tensor.insert_slice
func.func @two_directions(%init: tensor<4x8xf32>, %a: tensor<1x8xf32>, %b: tensor<4x1xf32>) -> tensor<4x8xf32> {
  %0 = tensor.insert_slice %a into %init[0, 0] [1, 8] [1, 1] : tensor<1x8xf32> into tensor<4x8xf32>
  %1 = tensor.insert_slice %b into %0[0, 3] [4, 1] [1, 1] : tensor<4x1xf32> into tensor<4x8xf32>
  return %1 : tensor<4x8xf32>
}

// CHECK: func.func @overlap
// CHECK: tensor.insert_slice
// CHECK: tensor.insert_slice
func.func @overlap(%init: tensor<4x8xf32>, %a: tensor<2x8xf32>, %b: tensor<2x8xf32>) -> tensor<4x8xf32> {
  %0 = tensor.insert_slice %a into %init[0, 0] [2, 8] [1, 1] : tensor<2x8xf32> into tensor<4x8xf32>
  %1 = tensor.insert_slice %b into %0[1, 0] [2, 8] [1, 1] : tensor<2x8xf32> into tensor<4x8xf32>
  return %1 : tensor<4x8xf32>
}
