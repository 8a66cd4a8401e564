// RUN: parc-opt %s --parc-raise-pixels --canonicalize --cse | filecheck %s
// RUN: parc-opt %s --parc-raise-pixels --emit=schedule --strategy=wavefront | filecheck %s --check-prefix=WAVES

// A masked convolution, one that is shifted by padding, and a threshold, for images of any size. Of the 3 x 3 taps of the
// first those in front of the pixel have weights, row by row; the other one sees a pixel and the one on its left.

// CHECK-LABEL: func.func @main
// CHECK-NOT: linalg.conv_2d_nchw_fchw

// One matrix for each tap with weights.
// CHECK-COUNT-4: tensor.extract_slice %{{.*}} : tensor<8x1x3x3xf32> to tensor<8x1xf32>
// CHECK-NOT: tensor<8x1x3x3xf32> to
// CHECK-COUNT-2: tensor.extract_slice %{{.*}} : tensor<1x8x1x2xf32> to tensor<1x8xf32>

// The noise is read pixel by pixel.
// CHECK: %[[U:.*]] = linalg.transpose ins(%{{.*}} : tensor<?x1x?x?xf32>) {{.*}} permutation = [2, 3, 0, 1]

// Arrays have the zeros around them that are read: a column on the left; a row above and a column on both sides.
// CHECK: "parc.system"
// CHECK: %[[A:.*]] = "parc.unknown"() {name = "A0", shape = #[[SHAPE_A:.*]]} : () -> tensor<?x?x?x8xf32>
// CHECK: %[[X:.*]] = "parc.unknown"() {name = "A1", shape = #[[SHAPE_X:.*]]} : () -> tensor<?x?x?x1xf32>
// CHECK: "parc.boundary"(%[[A]],
// CHECK-COUNT-3: "parc.boundary"(%[[X]],

// CHECK: "parc.equation"
// CHECK-COUNT-4: "parc.read"(%[[X]])
// CHECK: "parc.write"(%{{.*}}, %[[A]])
// CHECK: "parc.equation"
// CHECK-COUNT-2: "parc.read"(%[[A]])
// CHECK: "parc.read"(%[[U]])
// CHECK: "parc.write"(%{{.*}}, %[[X]])

// WAVES: //   work: H*W
// At 128 x 128 pixels: 2 * H + W - 2.
// WAVES: //   waves: 382

#shape = affine_map<()[B, H, W] -> (B, 1, H, W)>
#id = affine_map<(b, c, h, w) -> (b, c, h, w)>
module attributes {parc.symbols = ["B", "H", "W"], parc.fixed = {x = "sample"}, parc.nonzero = {
    mask = dense<[[[[true, true, true], [true, false, false], [false, false, false]]]]> : tensor<1x1x3x3xi1>}} {
  func.func @main(%B: index {parc.kind = "symbol", parc.name = "B"}, %H: index {parc.kind = "symbol", parc.name = "H"},
                  %W: index {parc.kind = "symbol", parc.name = "W"},
                  %x: tensor<?x1x?x?xf32> {parc.kind = "input", parc.name = "x", parc.shape = #shape},
                  %u: tensor<?x1x?x?xf32> {parc.kind = "input", parc.name = "u", parc.shape = #shape},
                  %k: tensor<8x1x3x3xf32> {parc.kind = "parameter", parc.name = "k"},
                  %mask: tensor<1x1x3x3xf32> {parc.kind = "parameter", parc.name = "mask"},
                  %out: tensor<1x8x1x2xf32> {parc.kind = "parameter", parc.name = "out"},
                  %bias: tensor<1xf32> {parc.kind = "parameter", parc.name = "bias"})
      -> (tensor<?x1x?x?xf32> {parc.name = "sample", parc.shape = #shape}) {
    %zero = arith.constant 0.0 : f32
    %one = arith.constant 1.0 : f32
    %k0 = tensor.empty() : tensor<8x1x3x3xf32>
    %masked = linalg.generic {indexing_maps = [#id, affine_map<(b, c, h, w) -> (0, c, h, w)>, #id],
        iterator_types = ["parallel", "parallel", "parallel", "parallel"]}
        ins(%k, %mask : tensor<8x1x3x3xf32>, tensor<1x1x3x3xf32>) outs(%k0 : tensor<8x1x3x3xf32>) {
    ^bb0(%a: f32, %b: f32, %o: f32):
      %p = arith.mulf %a, %b : f32
      linalg.yield %p : f32
    } -> tensor<8x1x3x3xf32>
    %around = tensor.pad %x low[0, 0, 1, 1] high[0, 0, 1, 1] {
    ^bb0(%i: index, %j: index, %l: index, %m: index):
      tensor.yield %zero : f32
    } : tensor<?x1x?x?xf32> to tensor<?x1x?x?xf32>
    %e0 = tensor.empty(%B, %H, %W) : tensor<?x8x?x?xf32>
    %z0 = linalg.fill ins(%zero : f32) outs(%e0 : tensor<?x8x?x?xf32>) -> tensor<?x8x?x?xf32>
    %y = linalg.conv_2d_nchw_fchw {dilations = dense<1> : vector<2xi64>, strides = dense<1> : vector<2xi64>}
        ins(%around, %masked : tensor<?x1x?x?xf32>, tensor<8x1x3x3xf32>) outs(%z0 : tensor<?x8x?x?xf32>) -> tensor<?x8x?x?xf32>
    %relu = linalg.generic {indexing_maps = [#id, #id], iterator_types = ["parallel", "parallel", "parallel", "parallel"]}
        ins(%y : tensor<?x8x?x?xf32>) outs(%e0 : tensor<?x8x?x?xf32>) {
    ^bb0(%a: f32, %o: f32):
      %p = arith.maximumf %a, %zero : f32
      linalg.yield %p : f32
    } -> tensor<?x8x?x?xf32>
    %left = tensor.pad %relu low[0, 0, 0, 1] high[0, 0, 0, 0] {
    ^bb0(%i: index, %j: index, %l: index, %m: index):
      tensor.yield %zero : f32
    } : tensor<?x8x?x?xf32> to tensor<?x8x?x?xf32>
    %e1 = tensor.empty(%B, %H, %W) : tensor<?x1x?x?xf32>
    %b1 = linalg.broadcast ins(%bias : tensor<1xf32>) outs(%e1 : tensor<?x1x?x?xf32>) dimensions = [0, 2, 3]
    %logit = linalg.conv_2d_nchw_fchw {dilations = dense<1> : vector<2xi64>, strides = dense<1> : vector<2xi64>}
        ins(%left, %out : tensor<?x8x?x?xf32>, tensor<1x8x1x2xf32>) outs(%b1 : tensor<?x1x?x?xf32>) -> tensor<?x1x?x?xf32>
    %sample = linalg.generic {indexing_maps = [#id, #id, #id], iterator_types = ["parallel", "parallel", "parallel", "parallel"]}
        ins(%logit, %u : tensor<?x1x?x?xf32>, tensor<?x1x?x?xf32>) outs(%e1 : tensor<?x1x?x?xf32>) {
    ^bb0(%a: f32, %b: f32, %o: f32):
      %less = arith.cmpf olt, %b, %a : f32
      %p = arith.select %less, %one, %zero : f32
      linalg.yield %p : f32
    } -> tensor<?x1x?x?xf32>
    return %sample : tensor<?x1x?x?xf32>
  }
}
