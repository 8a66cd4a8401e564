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
