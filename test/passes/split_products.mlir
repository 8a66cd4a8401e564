// RUN: parc-opt %s --parc-split-products --canonicalize --cse --split-input-file | filecheck %s

// The product with the input waits for nothing: it becomes an equation of its own, and the cell reads its result.

// CHECK: "parc.equation"() ({
// CHECK: %[[X:.*]] = "parc.read"({{.*}}) {{.*}} : (tensor<?x4x8xf32>) -> tensor<4x8xf32>
// CHECK: %[[P:.*]] = linalg.matmul ins(%[[X]]
// CHECK-NOT: linalg.matmul
// CHECK: "parc.write"(%[[P]]
// CHECK: name = "cell_in0"
// CHECK: "parc.equation"() ({
// CHECK: linalg.matmul
// CHECK-NOT: linalg.matmul
// CHECK: name = "cell"
#states = affine_map<()[T] -> (T + 1, 4, 8)>
#here = affine_map<(t)[T] -> (t)>
#next = affine_map<(t)[T] -> (t + 1)>
func.func @main(%T: index, %x: tensor<?x4x8xf32>, %h0: tensor<4x8xf32>, %w: tensor<8x8xf32>, %u: tensor<8x8xf32>) -> tensor<?x4x8xf32> {
  %s = "parc.system"(%T) ({
    %h = "parc.unknown"() {name = "H", shape = #states} : () -> tensor<?x4x8xf32>
    "parc.boundary"(%h, %h0) {domain = affine_set<()[T] : (0 == 0)>, to = affine_map<()[T] -> (0)>, of = affine_map<()[T] -> ()>} : (tensor<?x4x8xf32>, tensor<4x8xf32>) -> ()
    "parc.equation"() ({
    ^bb0(%t: index):
      %xt = "parc.read"(%x) {at = #here} : (tensor<?x4x8xf32>) -> tensor<4x8xf32>
      %ht = "parc.read"(%h) {at = #here} : (tensor<?x4x8xf32>) -> tensor<4x8xf32>
      %zero = arith.constant 0.0 : f32
      %e = tensor.empty() : tensor<4x8xf32>
      %f = linalg.fill ins(%zero : f32) outs(%e : tensor<4x8xf32>) -> tensor<4x8xf32>
      %p = linalg.matmul ins(%xt, %w : tensor<4x8xf32>, tensor<8x8xf32>) outs(%f : tensor<4x8xf32>) -> tensor<4x8xf32>
      %q = linalg.matmul ins(%ht, %u : tensor<4x8xf32>, tensor<8x8xf32>) outs(%f : tensor<4x8xf32>) -> tensor<4x8xf32>
      %sum = linalg.add ins(%p, %q : tensor<4x8xf32>, tensor<4x8xf32>) outs(%e : tensor<4x8xf32>) -> tensor<4x8xf32>
      %new = linalg.tanh ins(%sum : tensor<4x8xf32>) outs(%e : tensor<4x8xf32>) -> tensor<4x8xf32>
      "parc.write"(%new, %h) {at = #next} : (tensor<4x8xf32>, tensor<?x4x8xf32>) -> ()
    }) {name = "cell", domain = affine_set<(t)[T] : (t >= 0, T - 1 - t >= 0)>} : () -> ()
  }) {symbols = ["T"]} : (index) -> !parc.solution
  %H = "parc.array"(%s) {name = "H"} : (!parc.solution) -> tensor<?x4x8xf32>
  return %H : tensor<?x4x8xf32>
}

// -----

// A product of a concatenation is the sum of two: one of them does not wait.

// CHECK: linalg.matmul
// CHECK: name = "cell_in0"
// CHECK: linalg.matmul
// CHECK: name = "cell"
// CHECK-NOT: tensor.concat
#states = affine_map<()[T] -> (T + 1, 4, 8)>
#here = affine_map<(t)[T] -> (t)>
#next = affine_map<(t)[T] -> (t + 1)>
func.func @main(%T: index, %x: tensor<?x4x8xf32>, %h0: tensor<4x8xf32>, %w: tensor<16x8xf32>) -> tensor<?x4x8xf32> {
  %s = "parc.system"(%T) ({
    %h = "parc.unknown"() {name = "H", shape = #states} : () -> tensor<?x4x8xf32>
    "parc.boundary"(%h, %h0) {domain = affine_set<()[T] : (0 == 0)>, to = affine_map<()[T] -> (0)>, of = affine_map<()[T] -> ()>} : (tensor<?x4x8xf32>, tensor<4x8xf32>) -> ()
    "parc.equation"() ({
    ^bb0(%t: index):
      %xt = "parc.read"(%x) {at = #here} : (tensor<?x4x8xf32>) -> tensor<4x8xf32>
      %ht = "parc.read"(%h) {at = #here} : (tensor<?x4x8xf32>) -> tensor<4x8xf32>
      %both = tensor.concat dim(1) %xt, %ht : (tensor<4x8xf32>, tensor<4x8xf32>) -> tensor<4x16xf32>
      %zero = arith.constant 0.0 : f32
      %e = tensor.empty() : tensor<4x8xf32>
      %f = linalg.fill ins(%zero : f32) outs(%e : tensor<4x8xf32>) -> tensor<4x8xf32>
      %p = linalg.matmul ins(%both, %w : tensor<4x16xf32>, tensor<16x8xf32>) outs(%f : tensor<4x8xf32>) -> tensor<4x8xf32>
      %new = linalg.tanh ins(%p : tensor<4x8xf32>) outs(%e : tensor<4x8xf32>) -> tensor<4x8xf32>
      "parc.write"(%new, %h) {at = #next} : (tensor<4x8xf32>, tensor<?x4x8xf32>) -> ()
    }) {name = "cell", domain = affine_set<(t)[T] : (t >= 0, T - 1 - t >= 0)>} : () -> ()
  }) {symbols = ["T"]} : (index) -> !parc.solution
  %H = "parc.array"(%s) {name = "H"} : (!parc.solution) -> tensor<?x4x8xf32>
  return %H : tensor<?x4x8xf32>
}

// -----

// A sum of each row that two stages need is computed in both: only tiles are handed over, in arrays without gaps.

// CHECK-DAG: #[[ALL:.*]] = affine_map<()[s0] -> (s0, 4, 8)>
// CHECK: "parc.unknown"() {name = "cell_stage0_p0", shape = #[[ALL]]} : () -> tensor<?x4x8xf32>
// CHECK-NOT: tensor<?x4xf32>
// CHECK: iterator_types = ["parallel", "reduction"]
// CHECK: name = "cell_stage0"
// CHECK: iterator_types = ["parallel", "reduction"]
// CHECK: name = "cell"
#states = affine_map<()[T] -> (T + 1, 4, 8)>
#here = affine_map<(t)[T] -> (t)>
#next = affine_map<(t)[T] -> (t + 1)>
#id = affine_map<(i, j) -> (i, j)>
#row = affine_map<(i, j) -> (i)>
func.func @main(%T: index, %h0: tensor<4x8xf32>, %w: tensor<8x8xf32>) -> tensor<?x4x8xf32> {
  %s = "parc.system"(%T) ({
    %h = "parc.unknown"() {name = "H", shape = #states} : () -> tensor<?x4x8xf32>
    "parc.boundary"(%h, %h0) {domain = affine_set<()[T] : (0 == 0)>, to = affine_map<()[T] -> (0)>, of = affine_map<()[T] -> ()>} : (tensor<?x4x8xf32>, tensor<4x8xf32>) -> ()
    "parc.equation"() ({
    ^bb0(%t: index):
      %ht = "parc.read"(%h) {at = #here} : (tensor<?x4x8xf32>) -> tensor<4x8xf32>
      %zero = arith.constant 0.0 : f32
      %r = tensor.empty() : tensor<4xf32>
      %none = linalg.fill ins(%zero : f32) outs(%r : tensor<4xf32>) -> tensor<4xf32>
      %sum = linalg.generic {indexing_maps = [#id, #row], iterator_types = ["parallel", "reduction"]} ins(%ht : tensor<4x8xf32>) outs(%none : tensor<4xf32>) {
      ^bb0(%a: f32, %so_far: f32):
        %y = arith.addf %so_far, %a : f32
        linalg.yield %y : f32
      } -> tensor<4xf32>
      %e = tensor.empty() : tensor<4x8xf32>
      %part = linalg.generic {indexing_maps = [#id, #row, #id], iterator_types = ["parallel", "parallel"]} ins(%ht, %sum : tensor<4x8xf32>, tensor<4xf32>) outs(%e : tensor<4x8xf32>) {
      ^bb0(%a: f32, %b: f32, %o: f32):
        %y = arith.divf %a, %b : f32
        linalg.yield %y : f32
      } -> tensor<4x8xf32>
      %f = linalg.fill ins(%zero : f32) outs(%e : tensor<4x8xf32>) -> tensor<4x8xf32>
      %p = linalg.matmul ins(%part, %w : tensor<4x8xf32>, tensor<8x8xf32>) outs(%f : tensor<4x8xf32>) -> tensor<4x8xf32>
      %new = linalg.generic {indexing_maps = [#id, #row, #id], iterator_types = ["parallel", "parallel"]} ins(%p, %sum : tensor<4x8xf32>, tensor<4xf32>) outs(%e : tensor<4x8xf32>) {
      ^bb0(%a: f32, %b: f32, %o: f32):
        %y = arith.mulf %a, %b : f32
        linalg.yield %y : f32
      } -> tensor<4x8xf32>
      "parc.write"(%new, %h) {at = #next} : (tensor<4x8xf32>, tensor<?x4x8xf32>) -> ()
    }) {name = "cell", domain = affine_set<(t)[T] : (t >= 0, T - 1 - t >= 0)>} : () -> ()
  }) {symbols = ["T"]} : (index) -> !parc.solution
  %H = "parc.array"(%s) {name = "H"} : (!parc.solution) -> tensor<?x4x8xf32>
  return %H : tensor<?x4x8xf32>
}
