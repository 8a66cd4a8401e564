// RUN: parc-opt %s --parc-solve-affine="solver=scan chunk=4 levels=1" | filecheck %s
// RUN: parc-opt %s --parc-solve-affine="solver=cyclic-reduction levels=2" | filecheck %s --check-prefix=CYCLIC
// RUN: parc-opt %s --parc-solve-affine="solver=recursive-doubling levels=2 chunk=8" | filecheck %s --check-prefix=DOUBLING
// RUN: parc-opt %s --parc-solve-affine="solver=wavefront" | filecheck %s --check-prefix=SAME

// A leaky integrator, h[t + 1] = a * h[t] + x[t]. Chunks of four: the first is solved while the steps of others are
// composed, then the starts of these follow each other, and then they are solved.

// CHECK: affine_map<()[s0] -> (s0 ceildiv 4, 5, 8)>
// CHECK: "parc.system"
// CHECK: name = "H_x0"
// CHECK: name = "H_b0"
// CHECK: name = "H_A0"
// CHECK: name = "H_start0"
// The first two steps of each chunk: A = a * a.
// CHECK: "parc.equation"
// CHECK: arith.mulf
// CHECK: name = "H_pair0"
// CHECK: name = "H_head0"
// CHECK: name = "H_chunk0"
// The chunks' starts.
// CHECK: name = "H_second0"
// CHECK: name = "H_ends0"
// CHECK: name = "H_tail0"
// CHECK: distribute = "points"
// CHECK-SAME: strategy = "scan"
// CHECK-SAME: why = "it was asked for;

// Pairs of steps, pairs of pairs.
// CYCLIC: name = "H_pair0"
// CYCLIC: name = "H_pair1"
// CYCLIC: name = "H_ends2"
// CYCLIC: name = "H_first1"
// CYCLIC: name = "H_first0"
// CYCLIC: strategy = "cyclic-reduction"

// DOUBLING: name = "H_keep0"
// DOUBLING: name = "H_double0"
// DOUBLING: name = "H_keep1"
// DOUBLING: name = "H_double1"
// DOUBLING: name = "H_first"
// DOUBLING: name = "H_rest"
// DOUBLING: strategy = "recursive-doubling"

// SAME-NOT: strategy
// SAME: name = "H"
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
