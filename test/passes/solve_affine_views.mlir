// RUN: parc-opt %s --parc-solve-affine="solver=scan chunk=4 levels=1" | filecheck %s

// A leaky integrator that reads a view of its input, which is taken inside the equation: it outlives the equation.

// CHECK: tensor.collapse_shape
// CHECK: "parc.system"
// CHECK: name = "H_chunk0"
// CHECK: strategy = "scan"
#id = affine_map<(i) -> (i)>
#here = affine_map<(t)[T] -> (t)>
func.func @main(%T: index, %x: tensor<?x1x8xf32>, %a: tensor<8xf32>, %h0: tensor<8xf32>) -> tensor<?x8xf32> {
  %e = tensor.empty() : tensor<8xf32>
  %s = "parc.system"(%T) ({
    %h = "parc.unknown"() {name = "state", shape = affine_map<()[T] -> (T + 1, 8)>} : () -> tensor<?x8xf32>
    "parc.boundary"(%h, %h0) {domain = affine_set<()[T] : (0 == 0)>, to = affine_map<()[T] -> (0)>, of = affine_map<()[T] -> ()>} : (tensor<?x8xf32>, tensor<8xf32>) -> ()
    "parc.equation"() ({
    ^bb0(%t: index):
      %flat = tensor.collapse_shape %x [[0, 1], [2]] : tensor<?x1x8xf32> into tensor<?x8xf32>
      %ht = "parc.read"(%h) {at = #here} : (tensor<?x8xf32>) -> tensor<8xf32>
      %xt = "parc.read"(%flat) {at = #here} : (tensor<?x8xf32>) -> tensor<8xf32>
      %new = linalg.generic {indexing_maps = [#id, #id, #id, #id], iterator_types = ["parallel"]} ins(%a, %ht, %xt : tensor<8xf32>, tensor<8xf32>, tensor<8xf32>) outs(%e : tensor<8xf32>) {
      ^bb0(%ai: f32, %hi: f32, %xi: f32, %out: f32):
        %p = arith.mulf %ai, %hi : f32
        %q = arith.addf %p, %xi : f32
        linalg.yield %q : f32
      } -> tensor<8xf32>
      "parc.write"(%new, %h) {at = affine_map<(t)[T] -> (t + 1)>} : (tensor<8xf32>, tensor<?x8xf32>) -> ()
    }) {name = "H", domain = affine_set<(t)[T] : (t >= 0, -t + T - 1 >= 0)>} : () -> ()
  }) {symbols = ["T"]} : (index) -> !parc.solution
  %out = "parc.array"(%s) {name = "state"} : (!parc.solution) -> tensor<?x8xf32>
  return %out : tensor<?x8xf32>
}
