// RUN: not parc-opt %s --parc-solve-affine="solver=fastest" 2>&1 | filecheck %s --check-prefix=SOLVER
// RUN: not parc-opt %s --parc-solve-affine="solver=scan chunk=1" 2>&1 | filecheck %s --check-prefix=CHUNK
// RUN: not parc-opt %s --parc-solve-affine="solver=scan over=l" 2>&1 | filecheck %s --check-prefix=OVER

// SOLVER: error: there is no solver "fastest" (known: scan, recursive-doubling, cyclic-reduction, nested-scan)
// CHUNK: error: a chunk has at least two steps, and no option is negative
// OVER: error: the equation H runs along t, not along l
#id = affine_map<(i) -> (i)>
#here = affine_map<(t)[T] -> (t)>
func.func @main(%T: index, %x: tensor<?x8xf32>, %a: tensor<8xf32>, %h0: tensor<8xf32>) -> tensor<?x8xf32> {
  %e = tensor.empty() : tensor<8xf32>
  %s = "parc.system"(%T) ({
    %h = "parc.unknown"() {name = "state", shape = affine_map<()[T] -> (T + 1, 8)>} : () -> tensor<?x8xf32>
    "parc.boundary"(%h, %h0) {domain = affine_set<()[T] : (0 == 0)>, to = affine_map<()[T] -> (0)>, of = affine_map<()[T] -> ()>} : (tensor<?x8xf32>, tensor<8xf32>) -> ()
    "parc.equation"() ({
    ^bb0(%t: index):
      %ht = "parc.read"(%h) {at = #here} : (tensor<?x8xf32>) -> tensor<8xf32>
      %xt = "parc.read"(%x) {at = #here} : (tensor<?x8xf32>) -> tensor<8xf32>
      %new = linalg.generic {indexing_maps = [#id, #id, #id, #id], iterator_types = ["parallel"]} ins(%a, %ht, %xt : tensor<8xf32>, tensor<8xf32>, tensor<8xf32>) outs(%e : tensor<8xf32>) {
      ^bb0(%ai: f32, %hi: f32, %xi: f32, %out: f32):
        %p = arith.mulf %ai, %hi : f32
        %q = arith.addf %p, %xi : f32
        linalg.yield %q : f32
      } -> tensor<8xf32>
      "parc.write"(%new, %h) {at = affine_map<(t)[T] -> (t + 1)>} : (tensor<8xf32>, tensor<?x8xf32>) -> ()
    }) {name = "H", domain = affine_set<(t)[T] : (t >= 0, T - 1 - t >= 0)>} : () -> ()
  }) {symbols = ["T"]} : (index) -> !parc.solution
  %H = "parc.array"(%s) {name = "state"} : (!parc.solution) -> tensor<?x8xf32>
  return %H : tensor<?x8xf32>
}
