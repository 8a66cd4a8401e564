// RUN: parc-opt %s --split-input-file --verify-diagnostics --parc-close-iteration

module attributes {parc.fixed_point = {bound = affine_map<() -> (4)>, tolerance = 0.0 : f64, why = ""}} {
  // expected-error @below {{a step from tensor<4xf32> to tensor<2xf32> has no fixed point}}
  func.func @main(%x: tensor<4xf32> {parc.kind = "input", parc.name = "x"}) -> tensor<2xf32> {
    %y = tensor.extract_slice %x[0] [2] [1] : tensor<4xf32> to tensor<2xf32>
    return %y : tensor<2xf32>
  }
}

// -----

module attributes {parc.fixed_point = {bound = affine_map<() -> (4)>, tolerance = 0.0 : f64, why = ""}} {
  // expected-error @below {{a fixed point is of a program with an input and one result}}
  func.func @main(%x: tensor<4xf32> {parc.kind = "input", parc.name = "x"}) {
    return
  }
}
