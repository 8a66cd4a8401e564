// RUN: parc-opt %s --split-input-file --verify-diagnostics --parc-solve-affine="solver=scan"

// What no solver of affine recurrences takes is refused at the operation that is to blame.

#id = affine_map<(i) -> (i)>
#here = affine_map<(t)[T] -> (t)>
#next = affine_map<(t)[T] -> (t + 1)>
func.func @not_affine(%T: index, %h0: tensor<8xf32>) {
  %e = tensor.empty() : tensor<8xf32>
  %s = "parc.system"(%T) ({
    %h = "parc.unknown"() {name = "H", shape = affine_map<()[T] -> (T + 1, 8)>} : () -> tensor<?x8xf32>
    "parc.boundary"(%h, %h0) {domain = affine_set<()[T] : (0 == 0)>, to = affine_map<()[T] -> (0)>, of = affine_map<()[T] -> ()>} : (tensor<?x8xf32>, tensor<8xf32>) -> ()
    "parc.equation"() ({
    ^bb0(%t: index):
      %ht = "parc.read"(%h) {at = #here} : (tensor<?x8xf32>) -> tensor<8xf32>
      %new = linalg.generic {indexing_maps = [#id, #id], iterator_types = ["parallel"]} ins(%ht : tensor<8xf32>) outs(%e : tensor<8xf32>) {
      ^bb0(%hi: f32, %out: f32):
        // expected-error @below {{the equation cell is not affine in its state: 'math.tanh' is not linear in it}}
        %p = math.tanh %hi : f32
        linalg.yield %p : f32
      } -> tensor<8xf32>
      "parc.write"(%new, %h) {at = #next} : (tensor<8xf32>, tensor<?x8xf32>) -> ()
    }) {name = "cell", domain = affine_set<(t)[T] : (t >= 0, T - 1 - t >= 0)>} : () -> ()
  }) {symbols = ["T"]} : (index) -> !parc.solution
  return
}

// -----

#id = affine_map<(i) -> (i)>
#here = affine_map<(t)[T] -> (t)>
#next = affine_map<(t)[T] -> (t + 1)>
func.func @product_of_states(%T: index, %h0: tensor<8xf32>) {
  %e = tensor.empty() : tensor<8xf32>
  %s = "parc.system"(%T) ({
    %h = "parc.unknown"() {name = "H", shape = affine_map<()[T] -> (T + 1, 8)>} : () -> tensor<?x8xf32>
    "parc.boundary"(%h, %h0) {domain = affine_set<()[T] : (0 == 0)>, to = affine_map<()[T] -> (0)>, of = affine_map<()[T] -> ()>} : (tensor<?x8xf32>, tensor<8xf32>) -> ()
    "parc.equation"() ({
    ^bb0(%t: index):
      %ht = "parc.read"(%h) {at = #here} : (tensor<?x8xf32>) -> tensor<8xf32>
      %new = linalg.generic {indexing_maps = [#id, #id], iterator_types = ["parallel"]} ins(%ht : tensor<8xf32>) outs(%e : tensor<8xf32>) {
      ^bb0(%hi: f32, %out: f32):
        // expected-error @below {{the equation cell is not affine in its state: 'arith.mulf' is not linear in it}}
        %p = arith.mulf %hi, %hi : f32
        linalg.yield %p : f32
      } -> tensor<8xf32>
      "parc.write"(%new, %h) {at = #next} : (tensor<8xf32>, tensor<?x8xf32>) -> ()
    }) {name = "cell", domain = affine_set<(t)[T] : (t >= 0, T - 1 - t >= 0)>} : () -> ()
  }) {symbols = ["T"]} : (index) -> !parc.solution
  return
}

// -----

#here = affine_map<(t)[T] -> (t)>
func.func @two_steps_back(%T: index, %h0: tensor<8xf32>) {
  %s = "parc.system"(%T) ({
    %h = "parc.unknown"() {name = "H", shape = affine_map<()[T] -> (T + 2, 8)>} : () -> tensor<?x8xf32>
    "parc.boundary"(%h, %h0) {domain = affine_set<(i)[T] : (i >= 0, 1 - i >= 0)>, to = affine_map<(i)[T] -> (i)>, of = affine_map<(i)[T] -> ()>} : (tensor<?x8xf32>, tensor<8xf32>) -> ()
    // expected-error @below {{the equation cell is no recurrence along one dimension: it needs itself at the distance [2]}}
    "parc.equation"() ({
    ^bb0(%t: index):
      %ht = "parc.read"(%h) {at = #here} : (tensor<?x8xf32>) -> tensor<8xf32>
      "parc.write"(%ht, %h) {at = affine_map<(t)[T] -> (t + 2)>} : (tensor<8xf32>, tensor<?x8xf32>) -> ()
    }) {name = "cell", domain = affine_set<(t)[T] : (t >= 0, T - 1 - t >= 0)>} : () -> ()
  }) {symbols = ["T"]} : (index) -> !parc.solution
  return
}
