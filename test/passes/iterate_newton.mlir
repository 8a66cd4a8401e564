// RUN: parc-opt %s --parc-iterate="solver=newton tolerance=1e-6" | filecheck %s
// RUN: parc-opt %s --parc-iterate="solver=quasi-newton" | filecheck %s --check-prefix=DIAGONAL
// RUN: parc-opt %s --parc-iterate="solver=newton limit=5 damping=0.5" | filecheck %s --check-prefix=LIMIT
// RUN: parc-opt %s --parc-iterate="solver=newton" --parc-solve-affine="solver=newton" --parc-schedule --parc-verify-schedule

// h[t + 1] = tanh(h[t] W): f and its derivative at the old states at all points, then an affine recurrence.
// CHECK: "parc.iterate"
// CHECK: %[[OLD:.+]] = "parc.previous"(%{{.*}}) {name = "H"}
// CHECK: %[[FACTOR:.+]] = "parc.previous"(%{{.*}}) {name = "factor"}
// CHECK: "parc.system"
// CHECK: "parc.read"(%[[OLD]])
// CHECK: linalg.vecmat
// CHECK: name = "cell_linear_products0"
// The residual f(old[t]) - old[t + 1].
// CHECK: math.tanh
// CHECK: "parc.read"(%[[OLD]])
// CHECK: arith.subf
// CHECK: name = "cell_linear_terms"
// The derivative of tanh, of a product with weights, and the damping; what is not finite is 0.
// CHECK: arith.mulf
// CHECK: ins(%{{.*}}, %[[FACTOR]] : tensor<8x8xf32>, tensor<f32>)
// CHECK: math.absf
// CHECK: arith.select
// CHECK: name = "cell_linear_jacobian"
// A scan solves what is affine.
// CHECK: "parc.boundary"
// CHECK: iterator_types = ["reduction", "parallel"]
// CHECK: name = "cell_step"
// CHECK: solver = "scan"
// The new states: what is not finite counts as no correction.
// CHECK: arith.subf
// CHECK: math.absf
// CHECK: name = "cell_next"
// CHECK: "parc.next"(%{{.*}}) {name = "H"}
// CHECK: "parc.next"(%{{.*}}) {name = "factor"}
// CHECK: "parc.change"
// Without convergence it goes step by step.
// CHECK: name = "cell"}
// CHECK: solver = "newton"
// CHECK-SAME: exact after T sweeps, proved; after 64 sweeps without convergence it goes step by step

// The diagonal of the weights is taken once, outside of all sweeps' points.
// DIAGONAL: tensor.expand_shape
// DIAGONAL-NOT: reduction
// DIAGONAL: name = "cell_step"
// DIAGONAL: solver = "quasi-newton"

// LIMIT: arith.constant 5.000000e-01
// LIMIT: after 5 sweeps without convergence

func.func @main(%T: index {parc.kind = "symbol", parc.name = "T"}, %h0: tensor<8xf32>,
                %w: tensor<8x8xf32> {parc.kind = "parameter", parc.name = "w"}) -> tensor<?x8xf32> {
  %s = "parc.system"(%T) ({
    %h = "parc.unknown"() {name = "H", shape = affine_map<()[T] -> (T + 1, 8)>} : () -> tensor<?x8xf32>
    "parc.boundary"(%h, %h0) {domain = affine_set<()[T] : (0 == 0)>, to = affine_map<()[T] -> (0)>,
      of = affine_map<()[T] -> ()>} : (tensor<?x8xf32>, tensor<8xf32>) -> ()
    "parc.equation"() ({
    ^bb0(%t: index):
      %zero = arith.constant 0.0 : f32
      %e = tensor.empty() : tensor<8xf32>
      %start = linalg.fill ins(%zero : f32) outs(%e : tensor<8xf32>) -> tensor<8xf32>
      %ht = "parc.read"(%h) {at = affine_map<(t)[T] -> (t)>} : (tensor<?x8xf32>) -> tensor<8xf32>
      %p = linalg.vecmat ins(%ht, %w : tensor<8xf32>, tensor<8x8xf32>) outs(%start : tensor<8xf32>) -> tensor<8xf32>
      %new = linalg.generic {indexing_maps = [affine_map<(i) -> (i)>, affine_map<(i) -> (i)>],
          iterator_types = ["parallel"]} ins(%p : tensor<8xf32>) outs(%e : tensor<8xf32>) {
      ^bb0(%pi: f32, %out: f32):
        %y = math.tanh %pi : f32
        linalg.yield %y : f32
      } -> tensor<8xf32>
      "parc.write"(%new, %h) {at = affine_map<(t)[T] -> (t + 1)>} : (tensor<8xf32>, tensor<?x8xf32>) -> ()
    }) {name = "cell", domain = affine_set<(t)[T] : (t >= 0, T - 1 - t >= 0)>} : () -> ()
  }) {symbols = ["T"]} : (index) -> !parc.solution
  %H = "parc.array"(%s) {name = "H"} : (!parc.solution) -> tensor<?x8xf32>
  return %H : tensor<?x8xf32>
}
