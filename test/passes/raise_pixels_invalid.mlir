// RUN: parc-opt %s --split-input-file --verify-diagnostics --parc-raise-pixels --parc-schedule

// Steps that are no samplers of images, or whose pixels need each other, are refused where it is seen.

#shape = affine_map<()[H, W] -> (1, H, W)>
module attributes {parc.fixed = {x = "new"}} {
  // expected-error @below {{no convolution reads the image: it has no pixels}}
  func.func @main(%H: index {parc.kind = "symbol", parc.name = "H"}, %W: index {parc.kind = "symbol", parc.name = "W"},
                  %x: tensor<1x?x?xf32> {parc.kind = "input", parc.name = "x", parc.shape = #shape})
      -> (tensor<1x?x?xf32> {parc.name = "new", parc.shape = #shape}) {
    %y = arith.negf %x : tensor<1x?x?xf32>
    return %y : tensor<1x?x?xf32>
  }
}

// -----

// Weights that are not known to be zero: a pixel needs itself.
#shape = affine_map<()[H, W] -> (1, 8, H, W)>
module attributes {parc.fixed = {x = "new"}} {
  func.func @main(%H: index {parc.kind = "symbol", parc.name = "H"}, %W: index {parc.kind = "symbol", parc.name = "W"},
                  %x: tensor<1x8x?x?xf32> {parc.kind = "input", parc.name = "x", parc.shape = #shape},
                  %k: tensor<8x8x1x2xf32> {parc.kind = "parameter", parc.name = "k"})
      -> (tensor<1x8x?x?xf32> {parc.name = "new", parc.shape = #shape}) {
    %zero = arith.constant 0.0 : f32
    %left = tensor.pad %x low[0, 0, 0, 1] high[0, 0, 0, 0] {
    ^bb0(%i: index, %j: index, %l: index, %m: index):
      tensor.yield %zero : f32
    } : tensor<1x8x?x?xf32> to tensor<1x8x?x?xf32>
    %e = tensor.empty(%H, %W) : tensor<1x8x?x?xf32>
    %z = linalg.fill ins(%zero : f32) outs(%e : tensor<1x8x?x?xf32>) -> tensor<1x8x?x?xf32>
    // expected-error @below {{the equation layer0 has no order, it needs itself through A0: layer0[t0=0, t1=0] needs layer0[t0=0, t1=0] for H=1, W=1}}
    %y = linalg.conv_2d_nchw_fchw {dilations = dense<1> : vector<2xi64>, strides = dense<1> : vector<2xi64>}
        ins(%left, %k : tensor<1x8x?x?xf32>, tensor<8x8x1x2xf32>) outs(%z : tensor<1x8x?x?xf32>) -> tensor<1x8x?x?xf32>
    return %y : tensor<1x8x?x?xf32>
  }
}

// -----

#shape = affine_map<()[H, W] -> (1, 8, H, W)>
module attributes {parc.fixed = {x = "new"}} {
  func.func @main(%H: index {parc.kind = "symbol", parc.name = "H"}, %W: index {parc.kind = "symbol", parc.name = "W"},
                  %x: tensor<1x8x?x?xf32> {parc.kind = "input", parc.name = "x", parc.shape = #shape},
                  %k: tensor<8x8x1x2xf32> {parc.kind = "parameter", parc.name = "k"})
      -> (tensor<1x8x?x?xf32> {parc.name = "new", parc.shape = #shape}) {
    %zero = arith.constant 0.0 : f32
    %one = arith.constant 1.0 : f32
    // expected-error @below {{the image is padded with something other than 0}}
    %left = tensor.pad %x low[0, 0, 0, 1] high[0, 0, 0, 0] {
    ^bb0(%i: index, %j: index, %l: index, %m: index):
      tensor.yield %one : f32
    } : tensor<1x8x?x?xf32> to tensor<1x8x?x?xf32>
    %e = tensor.empty(%H, %W) : tensor<1x8x?x?xf32>
    %z = linalg.fill ins(%zero : f32) outs(%e : tensor<1x8x?x?xf32>) -> tensor<1x8x?x?xf32>
    %y = linalg.conv_2d_nchw_fchw {dilations = dense<1> : vector<2xi64>, strides = dense<1> : vector<2xi64>}
        ins(%left, %k : tensor<1x8x?x?xf32>, tensor<8x8x1x2xf32>) outs(%z : tensor<1x8x?x?xf32>) -> tensor<1x8x?x?xf32>
    return %y : tensor<1x8x?x?xf32>
  }
}

// -----

// The image is cut on the right and padded there again: those zeros are no zeros around an array.
#shape = affine_map<()[H, W] -> (1, 8, H, W)>
module attributes {parc.fixed = {x = "new"}} {
  func.func @main(%H: index {parc.kind = "symbol", parc.name = "H"}, %W: index {parc.kind = "symbol", parc.name = "W"},
                  %x: tensor<1x8x?x?xf32> {parc.kind = "input", parc.name = "x", parc.shape = #shape},
                  %k: tensor<8x8x1x2xf32> {parc.kind = "parameter", parc.name = "k"})
      -> (tensor<1x8x?x?xf32> {parc.name = "new", parc.shape = #shape}) {
    %zero = arith.constant 0.0 : f32
    %c1 = arith.constant 1 : index
    %less = arith.subi %W, %c1 : index
    %cut = tensor.extract_slice %x[0, 0, 0, 0] [1, 8, %H, %less] [1, 1, 1, 1] : tensor<1x8x?x?xf32> to tensor<1x8x?x?xf32>
    %padded = tensor.pad %cut low[0, 0, 0, 0] high[0, 0, 0, 2] {
    ^bb0(%i: index, %j: index, %l: index, %m: index):
      tensor.yield %zero : f32
    } : tensor<1x8x?x?xf32> to tensor<1x8x?x?xf32>
    %e = tensor.empty(%H, %W) : tensor<1x8x?x?xf32>
    %z = linalg.fill ins(%zero : f32) outs(%e : tensor<1x8x?x?xf32>) -> tensor<1x8x?x?xf32>
    // expected-error @below {{pixels that a slice cut off are read as zeros}}
    %y = linalg.conv_2d_nchw_fchw {dilations = dense<1> : vector<2xi64>, strides = dense<1> : vector<2xi64>}
        ins(%padded, %k : tensor<1x8x?x?xf32>, tensor<8x8x1x2xf32>) outs(%z : tensor<1x8x?x?xf32>) -> tensor<1x8x?x?xf32>
    return %y : tensor<1x8x?x?xf32>
  }
}
