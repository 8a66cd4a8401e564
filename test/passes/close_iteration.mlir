// RUN: parc-opt %s --parc-close-iteration | filecheck %s

// x = step(x, u): what depends on x is swept over, from the x of the call on; the rest is computed once, before.

// CHECK-DAG: #[[BOUND:.*]] = affine_map<()[s0] -> (4)>
// CHECK: func.func @main(%[[B:.*]]: index {{.*}}, %[[X:.*]]: tensor<?x4xf32> {{.*}}, %[[U:.*]]: tensor<?x4xf32> {{.*}}, %[[W:.*]]: tensor<4x4xf32>
// CHECK: %[[E:.*]] = math.exp %[[U]]
// CHECK: %[[LIMIT:.*]] = affine.apply
// CHECK: %[[S:.*]] = "parc.iterate"(%[[LIMIT]]) ({
// CHECK: ^bb0(%{{.*}}: index):
// CHECK:   %[[OLD:.*]] = "parc.previous"(%[[X]]) {name = "x"}
// CHECK:   %[[P:.*]] = linalg.matmul ins(%[[OLD]], %[[W]]
// CHECK:   %[[NEW:.*]] = arith.addf %[[P]], %[[E]]
// CHECK:   linalg.generic {{.*}} ins(%[[NEW]], %[[OLD]]
// CHECK:   "parc.next"(%[[NEW]]) {name = "x"}
// CHECK:   "parc.change"(%{{.*}}) : (f32) -> ()
// CHECK: }, {
// CHECK: }) {arrays = ["x"], bound = #[[BOUND]], name = "x", solver = "jacobi", start = "given", symbols = ["B"], tolerance = 0.000000e+00 : f64, why = "4 levels"}
// CHECK: %[[R:.*]] = "parc.iterated"(%[[S]]) {name = "x"}
// CHECK: return %[[R]]
module attributes {parc.fixed_point = {bound = affine_map<()[B] -> (4)>, tolerance = 0.0 : f64, why = "4 levels"}} {
  func.func @main(%B: index {parc.kind = "symbol", parc.name = "B"},
                  %x: tensor<?x4xf32> {parc.kind = "input", parc.name = "x"},
                  %u: tensor<?x4xf32> {parc.kind = "input", parc.name = "u"},
                  %w: tensor<4x4xf32> {parc.kind = "parameter", parc.name = "w"}) -> tensor<?x4xf32> {
    %zero = arith.constant 0.0 : f32
    %empty = tensor.empty(%B) : tensor<?x4xf32>
    %start = linalg.fill ins(%zero : f32) outs(%empty : tensor<?x4xf32>) -> tensor<?x4xf32>
    %product = linalg.matmul ins(%x, %w : tensor<?x4xf32>, tensor<4x4xf32>) outs(%start : tensor<?x4xf32>) -> tensor<?x4xf32>
    %noise = math.exp %u : tensor<?x4xf32>
    %sum = arith.addf %product, %noise : tensor<?x4xf32>
    return %sum : tensor<?x4xf32>
  }
}
