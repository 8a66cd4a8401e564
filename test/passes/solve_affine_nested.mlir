// RUN: parc-opt %s --parc-solve-affine="solver=nested-scan levels=1" --split-input-file | filecheck %s
// RUN: parc-opt %s --parc-solve-affine="solver=nested-scan levels=1" --split-input-file | parc-opt --parc-verify-schedule --split-input-file

// Two leaky integrators, one on top of the other, through an equation that scales what the lower one gives: that
// becomes a part of the upper one.  First the blocks of each layer, then those of both, then pairs of steps.

// CHECK-NOT: name = "between"
// CHECK: name = "low_start0"
// CHECK: name = "low_own1"
// CHECK: name = "low_upper0"
// CHECK: name = "low_across0"
// CHECK: name = "low_M_joined1_terms"
// CHECK: name = "low_M_joined1_sum1"
// CHECK: name = "low_c_joined1_sum1"
// CHECK: name = "low_ends_terms"
// CHECK: name = "low_first0_sum1"
// CHECK: name = "low_results0"
// CHECK: name = "low_results1"
// CHECK: distribute = "points"
// CHECK-SAME: strategy = "nested-scan"
// CHECK-SAME: why = "it was asked for; layers in the stack: 2"

#id = affine_map<(i) -> (i)>
#here = affine_map<(t)[T] -> (t)>
#next = affine_map<(t)[T] -> (t + 1)>
#steps = affine_set<(t)[T] : (t >= 0, T - 1 - t >= 0)>
func.func @stack(%T: index, %x: tensor<?x8xf32>, %h0: tensor<8xf32>, %a: tensor<8xf32>) -> tensor<?x8xf32> {
  %e = tensor.empty() : tensor<8xf32>
  %s = "parc.system"(%T) ({
    %l = "parc.unknown"() {name = "L", shape = affine_map<()[T] -> (T + 1, 8)>} : () -> tensor<?x8xf32>
    %p = "parc.unknown"() {name = "P", shape = affine_map<()[T] -> (T, 8)>} : () -> tensor<?x8xf32>
    %u = "parc.unknown"() {name = "U", shape = affine_map<()[T] -> (T + 1, 8)>} : () -> tensor<?x8xf32>
    "parc.boundary"(%l, %h0) {domain = affine_set<()[T] : (0 == 0)>, to = affine_map<()[T] -> (0)>, of = affine_map<()[T] -> ()>} : (tensor<?x8xf32>, tensor<8xf32>) -> ()
    "parc.boundary"(%u, %h0) {domain = affine_set<()[T] : (0 == 0)>, to = affine_map<()[T] -> (0)>, of = affine_map<()[T] -> ()>} : (tensor<?x8xf32>, tensor<8xf32>) -> ()
    "parc.equation"() ({
    ^bb0(%t: index):
      %before = "parc.read"(%l) {at = #here} : (tensor<?x8xf32>) -> tensor<8xf32>
      %xt = "parc.read"(%x) {at = #here} : (tensor<?x8xf32>) -> tensor<8xf32>
      %new = linalg.generic {indexing_maps = [#id, #id, #id, #id], iterator_types = ["parallel"]} ins(%a, %before, %xt : tensor<8xf32>, tensor<8xf32>, tensor<8xf32>) outs(%e : tensor<8xf32>) {
      ^bb0(%ai: f32, %hi: f32, %xi: f32, %out: f32):
        %m = arith.mulf %ai, %hi : f32
        %n = arith.addf %m, %xi : f32
        linalg.yield %n : f32
      } -> tensor<8xf32>
      "parc.write"(%new, %l) {at = #next} : (tensor<8xf32>, tensor<?x8xf32>) -> ()
    }) {name = "low", domain = #steps} : () -> ()
    "parc.equation"() ({
    ^bb0(%t: index):
      %below = "parc.read"(%l) {at = #next} : (tensor<?x8xf32>) -> tensor<8xf32>
      %new = linalg.generic {indexing_maps = [#id, #id, #id], iterator_types = ["parallel"]} ins(%a, %below : tensor<8xf32>, tensor<8xf32>) outs(%e : tensor<8xf32>) {
      ^bb0(%ai: f32, %hi: f32, %out: f32):
        %m = arith.mulf %ai, %hi : f32
        linalg.yield %m : f32
      } -> tensor<8xf32>
      "parc.write"(%new, %p) {at = #here} : (tensor<8xf32>, tensor<?x8xf32>) -> ()
    }) {name = "between", domain = #steps} : () -> ()
    "parc.equation"() ({
    ^bb0(%t: index):
      %before = "parc.read"(%u) {at = #here} : (tensor<?x8xf32>) -> tensor<8xf32>
      %pt = "parc.read"(%p) {at = #here} : (tensor<?x8xf32>) -> tensor<8xf32>
      %new = linalg.generic {indexing_maps = [#id, #id, #id, #id], iterator_types = ["parallel"]} ins(%a, %before, %pt : tensor<8xf32>, tensor<8xf32>, tensor<8xf32>) outs(%e : tensor<8xf32>) {
      ^bb0(%ai: f32, %hi: f32, %pi: f32, %out: f32):
        %m = arith.mulf %ai, %hi : f32
        %n = arith.addf %m, %pi : f32
        linalg.yield %n : f32
      } -> tensor<8xf32>
      "parc.write"(%new, %u) {at = #next} : (tensor<8xf32>, tensor<?x8xf32>) -> ()
    }) {name = "high", domain = #steps} : () -> ()
  }) {symbols = ["T"]} : (index) -> !parc.solution
  %U = "parc.array"(%s) {name = "U"} : (!parc.solution) -> tensor<?x8xf32>
  return %U : tensor<?x8xf32>
}
