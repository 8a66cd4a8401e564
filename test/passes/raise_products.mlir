// RUN: parc-opt %s --parc-raise-products --canonicalize --cse | filecheck %s

// A product with a parameter becomes a system: one point for each row, or for each `a` of [a, b, k] made [a * b, k].

// CHECK-LABEL: func.func @main
// CHECK-SAME: (%[[T:.*]]: index {{.*}}, %[[B:.*]]: index {{.*}}
// CHECK: %[[S:.*]] = "parc.system"(%[[T]], %[[B]]) ({
// CHECK: "parc.unknown"() {name = "product0_y", shape = #{{.*}}} : () -> tensor<?x?x32xf32>
// CHECK: "parc.read"(%{{.*}}) {{.*}} -> tensor<?x64xf32>
// CHECK: linalg.matmul
// CHECK: "parc.write"
// CHECK: }) {domain = #{{.*}}, name = "product0"}
// CHECK: "parc.array"(%[[S]]) {name = "product0_y"} : (!parc.solution) -> tensor<?x?x32xf32>

// What the product is added to is added afterwards.
// CHECK: linalg.generic
// CHECK: arith.addf

// A convolution is unfolded first: 7 places see 3 channels of 4 elements each.
// CHECK: linalg.generic {{.*}} outs(%{{.*}} : tensor<?x7x3x4xf32>)
// CHECK: "parc.system"
// CHECK: "parc.unknown"() {name = "product1_y", shape = #{{.*}}} : () -> tensor<?x7x8xf32>
// CHECK: linalg.matmul ins(%{{.*}} : tensor<7x12xf32>, tensor<12x8xf32>)
// CHECK: linalg.generic {{.*}} ins(%{{.*}} : tensor<?x7x8xf32>) outs(%{{.*}} : tensor<?x8x7xf32>)

// A generic form of a product, here with a transposed weight, is one too.
// CHECK: %[[WT:.*]] = linalg.transpose ins(%{{.*}} : tensor<24x64xf32>)
// CHECK: "parc.unknown"() {name = "product2_y", shape = #{{.*}}} : () -> tensor<?x?x24xf32>
// CHECK: linalg.matmul ins(%{{.*}}, %[[WT]] : tensor<?x64xf32>, tensor<64x24xf32>)

// Products of two inputs, and with few weights, stay.
// CHECK-NOT: parc.system
// CHECK: linalg.matmul
// CHECK: linalg.matmul
module attributes {parc.symbols = ["T", "B"]} {
  func.func @main(%T: index {parc.kind = "symbol", parc.name = "T"}, %B: index {parc.kind = "symbol", parc.name = "B"},
                  %x: tensor<?x?x64xf32> {parc.kind = "input", parc.name = "x"},
                  %image: tensor<?x3x10xf32> {parc.kind = "input", parc.name = "image"},
                  %w: tensor<64x32xf32> {parc.kind = "parameter", parc.name = "w"},
                  %bias: tensor<32xf32> {parc.kind = "parameter", parc.name = "bias"},
                  %filter: tensor<8x3x4xf32> {parc.kind = "parameter", parc.name = "filter"},
                  %narrow: tensor<32x2xf32> {parc.kind = "parameter", parc.name = "narrow"},
                  %u: tensor<24x64xf32> {parc.kind = "parameter", parc.name = "u"})
      -> (tensor<?x32xf32>, tensor<?x8x7xf32>, tensor<?x?x24xf32>, tensor<?x?xf32>, tensor<?x2xf32>) {
    %zero = arith.constant 0.0 : f32
    %TB = arith.muli %T, %B : index
    %rows = tensor.extract_slice %x[0, 0, 0] [%T, %B, 64] [1, 1, 1] : tensor<?x?x64xf32> to tensor<?x?x64xf32>
    %flat = tensor.collapse_shape %rows [[0, 1], [2]] : tensor<?x?x64xf32> into tensor<?x64xf32>
    %e0 = tensor.empty(%TB) : tensor<?x32xf32>
    %start = linalg.broadcast ins(%bias : tensor<32xf32>) outs(%e0 : tensor<?x32xf32>) dimensions = [0]
    %y = linalg.matmul ins(%flat, %w : tensor<?x64xf32>, tensor<64x32xf32>) outs(%start : tensor<?x32xf32>) -> tensor<?x32xf32>
    %e1 = tensor.empty(%B) : tensor<?x8x7xf32>
    %f1 = linalg.fill ins(%zero : f32) outs(%e1 : tensor<?x8x7xf32>) -> tensor<?x8x7xf32>
    %conv = linalg.conv_1d_ncw_fcw {dilations = dense<1> : vector<1xi64>, strides = dense<1> : vector<1xi64>}
        ins(%image, %filter : tensor<?x3x10xf32>, tensor<8x3x4xf32>) outs(%f1 : tensor<?x8x7xf32>) -> tensor<?x8x7xf32>
    %e4 = tensor.empty(%T, %B) : tensor<?x?x24xf32>
    %f4 = linalg.fill ins(%zero : f32) outs(%e4 : tensor<?x?x24xf32>) -> tensor<?x?x24xf32>
    %generic = linalg.generic {indexing_maps = [affine_map<(t, b, n, k) -> (t, b, k)>,
        affine_map<(t, b, n, k) -> (n, k)>, affine_map<(t, b, n, k) -> (t, b, n)>],
        iterator_types = ["parallel", "parallel", "parallel", "reduction"]}
        ins(%x, %u : tensor<?x?x64xf32>, tensor<24x64xf32>) outs(%f4 : tensor<?x?x24xf32>) {
    ^bb0(%a: f32, %b: f32, %c: f32):
      %p = arith.mulf %a, %b : f32
      %s = arith.addf %c, %p : f32
      linalg.yield %s : f32
    } -> tensor<?x?x24xf32>
    %e2 = tensor.empty(%TB, %TB) : tensor<?x?xf32>
    %turned = tensor.empty(%TB) : tensor<32x?xf32>
    %yt = linalg.transpose ins(%y : tensor<?x32xf32>) outs(%turned : tensor<32x?xf32>) permutation = [1, 0]
    %f2 = linalg.fill ins(%zero : f32) outs(%e2 : tensor<?x?xf32>) -> tensor<?x?xf32>
    %gram = linalg.matmul ins(%y, %yt : tensor<?x32xf32>, tensor<32x?xf32>) outs(%f2 : tensor<?x?xf32>) -> tensor<?x?xf32>
    %e3 = tensor.empty(%TB) : tensor<?x2xf32>
    %f3 = linalg.fill ins(%zero : f32) outs(%e3 : tensor<?x2xf32>) -> tensor<?x2xf32>
    %few = linalg.matmul ins(%y, %narrow : tensor<?x32xf32>, tensor<32x2xf32>) outs(%f3 : tensor<?x2xf32>) -> tensor<?x2xf32>
    return %y, %conv, %generic, %gram, %few : tensor<?x32xf32>, tensor<?x8x7xf32>, tensor<?x?x24xf32>, tensor<?x?xf32>, tensor<?x2xf32>
  }
}
