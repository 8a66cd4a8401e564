// RUN: parc-opt %s --parc-lower-to-loops --split-input-file --verify-diagnostics
// RUN: not parc-opt %s --parc-lower-to-loops --split-input-file 2>%t | filecheck %s

// The units of each step are shared among the threads, with a barrier after each step; the weight is packed once, from
// what it is the transpose of.

// CHECK: func.func @main({{.*}}, %[[W:[a-z0-9]+]]: tensor<16x16xf32>)
// CHECK: tensor.expand_shape %[[W]]
// CHECK: linalg.transpose {{.*}} permutation = [0, 2, 1, 3, 5, 4]
// CHECK: "parc.team"() ({
// CHECK: ^bb0(%[[ME:[a-z0-9]+]]: index, %[[THREADS:[a-z0-9]+]]: index):
// CHECK: arith.muli %[[ME]]
// CHECK: scf.for
// CHECK: func.call @cell_kernel(
// CHECK: "parc.barrier"()
// CHECK: bufferization.to_tensor
// CHECK-NOT: parc.system
// CHECK: func.func private @cell_kernel
// CHECK: vector.fma
#states = affine_map<()[T] -> (T + 1, 4, 16)>
#here = affine_map<(t)[T] -> (t)>
#next = affine_map<(t)[T] -> (t + 1)>
func.func @main(%T: index, %x: tensor<?x4x16xf32>, %h0: tensor<4x16xf32>, %w: tensor<16x16xf32>) -> tensor<?x4x16xf32> {
  %e = tensor.empty() : tensor<16x16xf32>
  %u = linalg.transpose ins(%w : tensor<16x16xf32>) outs(%e : tensor<16x16xf32>) permutation = [1, 0]
  %s = "parc.system"(%T) ({
    %h = "parc.unknown"() {name = "H", shape = #states} : () -> tensor<?x4x16xf32>
    "parc.boundary"(%h, %h0) {domain = affine_set<()[T] : (0 == 0)>, to = affine_map<()[T] -> (0)>, of = affine_map<()[T] -> ()>}
      : (tensor<?x4x16xf32>, tensor<4x16xf32>) -> ()
    "parc.equation"() ({
    ^bb0(%t: index):
      %xt = "parc.read"(%x) {at = #here} : (tensor<?x4x16xf32>) -> tensor<4x16xf32>
      %ht = "parc.read"(%h) {at = #here} : (tensor<?x4x16xf32>) -> tensor<4x16xf32>
      %new = linalg.matmul ins(%ht, %u : tensor<4x16xf32>, tensor<16x16xf32>) outs(%xt : tensor<4x16xf32>) -> tensor<4x16xf32>
      "parc.write"(%new, %h) {at = #next} : (tensor<4x16xf32>, tensor<?x4x16xf32>) -> ()
    }) {name = "cell", domain = affine_set<(t)[T] : (t >= 0, T - 1 - t >= 0)>, schedule = affine_map<(t)[T] -> (t)>} : () -> ()
  }) {symbols = ["T"], strategy = "layers", distribute = "units"} : (index) -> !parc.solution
  %H = "parc.array"(%s) {name = "H"} : (!parc.solution) -> tensor<?x4x16xf32>
  return %H : tensor<?x4x16xf32>
}

// -----

// A schedule is proved again: this one runs backwards.

func.func @main(%T: index, %x: tensor<?x8xf32>, %h0: tensor<8xf32>) -> tensor<?x8xf32> {
  %s = "parc.system"(%T) ({
    %h = "parc.unknown"() {name = "H", shape = affine_map<()[T] -> (T + 1, 8)>} : () -> tensor<?x8xf32>
    "parc.boundary"(%h, %h0) {domain = affine_set<()[T] : (0 == 0)>, to = affine_map<()[T] -> (0)>, of = affine_map<()[T] -> ()>}
      : (tensor<?x8xf32>, tensor<8xf32>) -> ()
    // expected-error @below {{cell[t=1] must run after cell[t=0]}}
    "parc.equation"() ({
    ^bb0(%t: index):
      %xt = "parc.read"(%x) {at = affine_map<(t)[T] -> (t)>} : (tensor<?x8xf32>) -> tensor<8xf32>
      %ht = "parc.read"(%h) {at = affine_map<(t)[T] -> (t)>} : (tensor<?x8xf32>) -> tensor<8xf32>
      %new = arith.addf %xt, %ht : tensor<8xf32>
      "parc.write"(%new, %h) {at = affine_map<(t)[T] -> (t + 1)>} : (tensor<8xf32>, tensor<?x8xf32>) -> ()
    }) {name = "cell", domain = affine_set<(t)[T] : (t >= 0, T - 1 - t >= 0)>, schedule = affine_map<(t)[T] -> (T - t)>} : () -> ()
  }) {symbols = ["T"], strategy = "given", distribute = "units"} : (index) -> !parc.solution
  %H = "parc.array"(%s) {name = "H"} : (!parc.solution) -> tensor<?x8xf32>
  return %H : tensor<?x8xf32>
}

// -----

// expected-error @unknown {{the module has no function @main}}
func.func @other() {
  return
}
