// RUN: parc-opt %s --split-input-file --verify-diagnostics --parc-iterate-layers="solver=jacobi-gs block=2"

// Blocks that leave nothing to sweep over are refused: the first two are known, and no other needs the last.

func.func @main(%x: tensor<4x8xf32> {parc.kind = "input"}, %wa: tensor<8x8xf32> {parc.kind = "parameter"},
    %wb: tensor<8x8xf32> {parc.kind = "parameter"}, %wc: tensor<8x8xf32> {parc.kind = "parameter"},
    %wd: tensor<8x8xf32> {parc.kind = "parameter"}) -> tensor<4x8xf32> {
  %c0 = arith.constant 0.0 : f32
  %e = tensor.empty() : tensor<4x8xf32>
  %zero = linalg.fill ins(%c0 : f32) outs(%e : tensor<4x8xf32>) -> tensor<4x8xf32>
  %a = linalg.matmul ins(%x, %wa : tensor<4x8xf32>, tensor<8x8xf32>) outs(%zero : tensor<4x8xf32>) -> tensor<4x8xf32>
  %b = linalg.matmul ins(%a, %wb : tensor<4x8xf32>, tensor<8x8xf32>) outs(%zero : tensor<4x8xf32>) -> tensor<4x8xf32>
  %c = linalg.matmul ins(%b, %wc : tensor<4x8xf32>, tensor<8x8xf32>) outs(%zero : tensor<4x8xf32>) -> tensor<4x8xf32>
  // expected-error @below {{there is nothing to sweep over in 4 layers with blocks of 2: choose at most 1, or 0}}
  %d = linalg.matmul ins(%c, %wd : tensor<4x8xf32>, tensor<8x8xf32>) outs(%zero : tensor<4x8xf32>) -> tensor<4x8xf32>
  return %d : tensor<4x8xf32>
}

// -----

func.func @main(%x: tensor<4x8xf32> {parc.kind = "input"}, %wa: tensor<8x8xf32> {parc.kind = "parameter"})
    -> tensor<4x8xf32> {
  %e = tensor.empty() : tensor<4x8xf32>
  // expected-error @below {{a block cannot have 2 of 1 layers: choose fewer, or 0}}
  %a = linalg.matmul ins(%x, %wa : tensor<4x8xf32>, tensor<8x8xf32>) outs(%e : tensor<4x8xf32>) -> tensor<4x8xf32>
  return %a : tensor<4x8xf32>
}

// -----

// What has no weights is no layer.

// expected-error @below {{there is nothing to sweep over in 0 layers, at least 4 that need each other: choose the strategy auto}}
func.func @main(%x: tensor<4x8xf32> {parc.kind = "input"}) -> tensor<4x8xf32> {
  %e = tensor.empty() : tensor<4x8xf32>
  %a = linalg.tanh ins(%x : tensor<4x8xf32>) outs(%e : tensor<4x8xf32>) -> tensor<4x8xf32>
  return %a : tensor<4x8xf32>
}
