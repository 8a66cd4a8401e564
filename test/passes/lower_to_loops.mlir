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

// Two layers, each with an owner: members of the two crews share units, wait for their crew after the input product and,
// after a wave, also for the crew that they read from or whose reads they overwrite; here the second waits for the first.

// CHECK: "parc.team"() ({
// CHECK: ^bb0(%[[ME:[a-z0-9]+]]: index, %[[THREADS:[a-z0-9]+]]: index):
// CHECK-DAG: %[[CREWS:.*]] = arith.minui %{{.*}}, %[[THREADS]] : index
// CHECK-DAG: %[[SIZE:.*]] = arith.divui %[[THREADS]], %[[CREWS]] : index
// CHECK-DAG: %[[PLACE:.*]] = arith.remui %[[ME]], %[[SIZE]] : index
// CHECK-DAG: %[[CREW:.*]] = arith.divui %[[ME]], %[[SIZE]] : index
// CHECK-DAG: %[[ITSELF:.*]] = arith.constant 1 : i64
// CHECK-DAG: %[[BOTH:.*]] = arith.constant 3 : i64
// CHECK: arith.select %{{.*}}, %[[BOTH]], %{{.*}} : i64
// CHECK: arith.muli %[[PLACE]]
// CHECK: scf.for
// CHECK: func.call @product_kernel(
// CHECK: arith.cmpi ne, %[[SIZE]]
// CHECK-NEXT: scf.if
// CHECK-NEXT: "parc.arrive"()
// CHECK-NEXT: "parc.await"(%[[SIZE]],
// CHECK: func.call @cell_kernel(
// CHECK: "parc.arrive"()
// CHECK-NEXT: "parc.await"(%[[SIZE]],
// CHECK-NOT: parc.barrier
// CHECK: bufferization.to_tensor
#states = affine_map<()[T] -> (T + 1, 4, 16)>
#here = affine_map<(t)[T] -> (t)>
#next = affine_map<(t)[T] -> (t + 1)>
#steps = affine_set<(t)[T] : (t >= 0, T - 1 - t >= 0)>
#start = affine_set<()[T] : (0 == 0)>
func.func @main(%T: index, %x: tensor<?x4x16xf32>, %h0: tensor<4x16xf32>, %u: tensor<16x16xf32>) -> tensor<?x4x16xf32> {
  %s = "parc.system"(%T) ({
    %p = "parc.unknown"() {name = "P", shape = affine_map<()[T] -> (T, 4, 16)>} : () -> tensor<?x4x16xf32>
    %g = "parc.unknown"() {name = "G", shape = #states} : () -> tensor<?x4x16xf32>
    %h = "parc.unknown"() {name = "H", shape = #states} : () -> tensor<?x4x16xf32>
    "parc.boundary"(%g, %h0) {domain = #start, to = affine_map<()[T] -> (0)>, of = affine_map<()[T] -> ()>}
      : (tensor<?x4x16xf32>, tensor<4x16xf32>) -> ()
    "parc.boundary"(%h, %h0) {domain = #start, to = affine_map<()[T] -> (0)>, of = affine_map<()[T] -> ()>}
      : (tensor<?x4x16xf32>, tensor<4x16xf32>) -> ()
    "parc.equation"() ({
    ^bb0(%t: index):
      %xt = "parc.read"(%x) {at = #here} : (tensor<?x4x16xf32>) -> tensor<4x16xf32>
      %zero = arith.constant 0.0 : f32
      %e = tensor.empty() : tensor<4x16xf32>
      %f = linalg.fill ins(%zero : f32) outs(%e : tensor<4x16xf32>) -> tensor<4x16xf32>
      %new = linalg.matmul ins(%xt, %u : tensor<4x16xf32>, tensor<16x16xf32>) outs(%f : tensor<4x16xf32>) -> tensor<4x16xf32>
      "parc.write"(%new, %p) {at = #here} : (tensor<4x16xf32>, tensor<?x4x16xf32>) -> ()
    }) {name = "product", domain = #steps, schedule = affine_map<(t)[T] -> (t, 0)>, owner = affine_map<(t)[T] -> (0)>} : () -> ()
    "parc.equation"() ({
    ^bb0(%t: index):
      %pt = "parc.read"(%p) {at = #here} : (tensor<?x4x16xf32>) -> tensor<4x16xf32>
      %gt = "parc.read"(%g) {at = #here} : (tensor<?x4x16xf32>) -> tensor<4x16xf32>
      %new = linalg.matmul ins(%gt, %u : tensor<4x16xf32>, tensor<16x16xf32>) outs(%pt : tensor<4x16xf32>) -> tensor<4x16xf32>
      "parc.write"(%new, %g) {at = #next} : (tensor<4x16xf32>, tensor<?x4x16xf32>) -> ()
    }) {name = "cell", domain = #steps, schedule = affine_map<(t)[T] -> (t, 1)>, owner = affine_map<(t)[T] -> (0)>} : () -> ()
    "parc.equation"() ({
    ^bb0(%t: index):
      %gt = "parc.read"(%g) {at = #next} : (tensor<?x4x16xf32>) -> tensor<4x16xf32>
      %ht = "parc.read"(%h) {at = #here} : (tensor<?x4x16xf32>) -> tensor<4x16xf32>
      %new = linalg.matmul ins(%ht, %u : tensor<4x16xf32>, tensor<16x16xf32>) outs(%gt : tensor<4x16xf32>) -> tensor<4x16xf32>
      "parc.write"(%new, %h) {at = #next} : (tensor<4x16xf32>, tensor<?x4x16xf32>) -> ()
    }) {name = "above", domain = #steps, schedule = affine_map<(t)[T] -> (t + 1, 1)>, owner = affine_map<(t)[T] -> (1)>} : () -> ()
  }) {symbols = ["T"], strategy = "wavefront", distribute = "points"} : (index) -> !parc.solution
  %H = "parc.array"(%s) {name = "H"} : (!parc.solution) -> tensor<?x4x16xf32>
  return %H : tensor<?x4x16xf32>
}

// -----

// Where sizes say how many owners there are, each member is one, and waits for all.

// CHECK: "parc.team"() ({
// CHECK: ^bb0(%[[ME:[a-z0-9]+]]: index, %[[THREADS:[a-z0-9]+]]: index):
// CHECK: scf.for
// CHECK: arith.remui %{{.*}}, %[[THREADS]] : index
// CHECK: arith.cmpi eq, %{{.*}}, %[[ME]] : index
// CHECK: func.call @many_kernel(
// CHECK: "parc.barrier"()
// CHECK-NOT: parc.await
#grid = affine_map<()[T] -> (T, T + 1, 8)>
func.func @main(%T: index, %h0: tensor<8xf32>) -> tensor<?x?x8xf32> {
  %s = "parc.system"(%T) ({
    %h = "parc.unknown"() {name = "H", shape = #grid} : () -> tensor<?x?x8xf32>
    "parc.boundary"(%h, %h0) {domain = affine_set<(i)[T] : (i >= 0, T - 1 - i >= 0)>, to = affine_map<(i)[T] -> (i, 0)>, of = affine_map<(i)[T] -> ()>}
      : (tensor<?x?x8xf32>, tensor<8xf32>) -> ()
    "parc.equation"() ({
    ^bb0(%i: index, %t: index):
      %ht = "parc.read"(%h) {at = affine_map<(i, t)[T] -> (i, t)>} : (tensor<?x?x8xf32>) -> tensor<8xf32>
      %new = math.tanh %ht : tensor<8xf32>
      "parc.write"(%new, %h) {at = affine_map<(i, t)[T] -> (i, t + 1)>} : (tensor<8xf32>, tensor<?x?x8xf32>) -> ()
    }) {name = "many", domain = affine_set<(i, t)[T] : (i >= 0, T - 1 - i >= 0, t >= 0, T - 1 - t >= 0)>,
        schedule = affine_map<(i, t)[T] -> (t)>, owner = affine_map<(i, t)[T] -> (i)>} : () -> ()
  }) {symbols = ["T"], strategy = "wavefront", distribute = "points"} : (index) -> !parc.solution
  %H = "parc.array"(%s) {name = "H"} : (!parc.solution) -> tensor<?x?x8xf32>
  return %H : tensor<?x?x8xf32>
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
