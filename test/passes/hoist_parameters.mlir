// RUN: parc-opt %s --parc-hoist-parameters --split-input-file --verify-diagnostics
// RUN: not parc-opt %s --parc-hoist-parameters --split-input-file 2>%t | filecheck %s

// The transpose of a weight and the sum of two biases are computed once, not at every call.

// CHECK: module attributes {parc.prepared = [tensor<8x16xf32>, tensor<16xf32>]}
// CHECK: func.func @prepare(%[[W:[a-z0-9]+]]: tensor<16x8xf32> {parc.kind = "parameter"}, %{{.*}}: tensor<16xf32> {parc.kind = "parameter"}, %{{.*}}: tensor<16xf32> {parc.kind = "parameter"}) -> (tensor<8x16xf32>, tensor<16xf32>)
// CHECK: linalg.transpose ins(%[[W]]
// CHECK: linalg.add
// CHECK: func.func @main(%{{.*}}, %[[X:[a-z0-9]+]]: tensor<?x8xf32> {parc.kind = "input"}, {{.*}}, %[[P:[a-z0-9]+]]: tensor<8x16xf32> {parc.kind = "prepared"}, %[[B:[a-z0-9]+]]: tensor<16xf32> {parc.kind = "prepared"})
// CHECK-NOT: linalg.transpose
// CHECK-NOT: linalg.add
// CHECK: linalg.broadcast ins(%[[B]]
// CHECK: linalg.matmul ins(%[[X]], %[[P]]
func.func @main(%n: index {parc.kind = "symbol"}, %x: tensor<?x8xf32> {parc.kind = "input"}, %w: tensor<16x8xf32> {parc.kind = "parameter"},
    %b: tensor<16xf32> {parc.kind = "parameter"}, %c: tensor<16xf32> {parc.kind = "parameter"}) -> tensor<?x16xf32> {
  %e0 = tensor.empty() : tensor<8x16xf32>
  %wt = linalg.transpose ins(%w : tensor<16x8xf32>) outs(%e0 : tensor<8x16xf32>) permutation = [1, 0]
  %e1 = tensor.empty() : tensor<16xf32>
  %bc = linalg.add ins(%b, %c : tensor<16xf32>, tensor<16xf32>) outs(%e1 : tensor<16xf32>) -> tensor<16xf32>
  %e2 = tensor.empty(%n) : tensor<?x16xf32>
  %start = linalg.broadcast ins(%bc : tensor<16xf32>) outs(%e2 : tensor<?x16xf32>) dimensions = [0]
  %y = linalg.matmul ins(%x, %wt : tensor<?x8xf32>, tensor<8x16xf32>) outs(%start : tensor<?x16xf32>) -> tensor<?x16xf32>
  return %y : tensor<?x16xf32>
}

// -----

// A view of a parameter costs nothing: it stays, and there is nothing to prepare.

// CHECK: module attributes {parc.prepared = []}
// CHECK-NOT: @prepare
// CHECK: tensor.collapse_shape
func.func @main(%w: tensor<2x8xf32> {parc.kind = "parameter"}) -> tensor<16xf32> {
  %v = tensor.collapse_shape %w [[0, 1]] : tensor<2x8xf32> into tensor<16xf32>
  return %v : tensor<16xf32>
}

// -----

// expected-error @unknown {{the module has no function @main}}
func.func @other() {
  return
}
