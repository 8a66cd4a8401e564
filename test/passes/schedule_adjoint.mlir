// RUN: parc-opt %s --parc-split-products --canonicalize --cse --parc-schedule="strategy=wavefront" --parc-verify-schedule | filecheck %s --check-prefix=WAVE
// RUN: parc-opt %s --parc-split-products --canonicalize --cse --parc-schedule="strategy=layers time_tile=8" --parc-verify-schedule | filecheck %s --check-prefix=LAYERS
// RUN: parc-opt %s --parc-split-products --canonicalize --cse --parc-schedule="strategy=layers time_tile=8" --parc-lower-to-loops | filecheck %s --check-prefix=LOOPS
// RUN: parc-opt %s --parc-split-products --canonicalize --cse --parc-schedule="strategy=wavefront distribute=points time_tile=8" --parc-verify-schedule | filecheck %s --check-prefix=TILED
// RUN: parc-opt %s --emit=schedule --strategy=wavefront --sizes=T=16,B=2 | filecheck %s --check-prefix=REPORT

// The backward pass of four layers: `d3[t] = e3[t] * (g[t] + d3[t + 1] U^T)` and, below it,
// `d2[t] = e2[t] * (d3[t] W^T + d2[t + 1] U^T)`, where e is the derivative that the forward pass saved.
// Time runs backwards; else this is the mirror image of the forward schedule.

// WAVE-DAG: #[[TOP:.*]] = affine_map<(d0)[s0, s1] -> (-d0 + s0 - 1, 0)>
// WAVE-DAG: #[[SECOND:.*]] = affine_map<(d0)[s0, s1] -> (-d0 + s0, 1)>
// WAVE-DAG: #[[BOTTOM:.*]] = affine_map<(d0)[s0, s1] -> (-d0 + s0 + 2, 1)>
// WAVE: name = "adjoint3",{{.*}} schedule = #[[TOP]]}
// WAVE: name = "adjoint2",{{.*}} schedule = #[[SECOND]]}
// WAVE: name = "adjoint0",{{.*}} schedule = #[[BOTTOM]]}

// The product with the cotangents of the layer above has one time in a tile: it is one product for eight steps.
// LAYERS-DAG: #[[ABOVE:.*]] = affine_map<(d0)[s0, s1] -> (1, (-d0 + s0 - 1) floordiv 8, 0, 0)>
// LAYERS-DAG: #[[SECOND:.*]] = affine_map<(d0)[s0, s1] -> (1, (-d0 + s0 - 1) floordiv 8, 1, (-d0 + s0 - 1) mod 8)>
// LAYERS: name = "adjoint2_in0", schedule = #[[ABOVE]]}
// LAYERS: name = "adjoint2", schedule = #[[SECOND]]}

// All layers have one kernel.
// LOOPS: call @adjoint3_kernel
// LOOPS: scf.for
// LOOPS-NOT: scf.for
// LOOPS: call @adjoint2_in0_kernel
// LOOPS: scf.for
// LOOPS-NOT: scf.for
// LOOPS: call @adjoint3_kernel

// TILED-DAG: #[[WORKER:.*]] = affine_map<(d0)[s0, s1] -> (1)>
// TILED-DAG: #[[ABOVE:.*]] = affine_map<(d0)[s0, s1] -> ((-d0 + s0 - 1) floordiv 8 + 1, 0, 0)>
// TILED-DAG: #[[SECOND:.*]] = affine_map<(d0)[s0, s1] -> ((-d0 + s0 - 1) floordiv 8 + 1, 1, (-d0 + s0 - 1) mod 8)>
// TILED: name = "adjoint2_in0", owner = #[[WORKER]], schedule = #[[ABOVE]]}
// TILED: name = "adjoint2", owner = #[[WORKER]], schedule = #[[SECOND]]}

// REPORT: //   work: 4*T = 64
// REPORT: //   span: T + 3 = 19
// REPORT: //   waves: T + 3 = 19

#here = affine_map<(t)[T, B] -> (t)>
#next = affine_map<(t)[T, B] -> (t + 1)>
#end = affine_map<()[T, B] -> (T)>
#whole = affine_map<()[T, B] -> ()>
#once = affine_set<()[T, B] : (0 == 0)>
#steps = affine_set<(t)[T, B] : (t >= 0, T - 1 - t >= 0)>
#cotangents = affine_map<()[T, B] -> (T + 1, B, 8)>
func.func @main(%T: index, %B: index, %g: tensor<?x?x8xf32>,
    %e0: tensor<?x?x8xf32>, %e1: tensor<?x?x8xf32>, %e2: tensor<?x?x8xf32>, %e3: tensor<?x?x8xf32>, %Ut: tensor<8x8xf32>, %Wt: tensor<8x8xf32>) -> tensor<?x?x8xf32> {
  %zero = arith.constant 0.0 : f32
  %e = tensor.empty(%B) : tensor<?x8xf32>
  %zeros = linalg.fill ins(%zero : f32) outs(%e : tensor<?x8xf32>) -> tensor<?x8xf32>
  %s = "parc.system"(%T, %B) ({
    %d0 = "parc.unknown"() {name = "d0", shape = #cotangents} : () -> tensor<?x?x8xf32>
    %d1 = "parc.unknown"() {name = "d1", shape = #cotangents} : () -> tensor<?x?x8xf32>
    %d2 = "parc.unknown"() {name = "d2", shape = #cotangents} : () -> tensor<?x?x8xf32>
    %d3 = "parc.unknown"() {name = "d3", shape = #cotangents} : () -> tensor<?x?x8xf32>
    "parc.boundary"(%d0, %zeros) {domain = #once, to = #end, of = #whole} : (tensor<?x?x8xf32>, tensor<?x8xf32>) -> ()
    "parc.boundary"(%d1, %zeros) {domain = #once, to = #end, of = #whole} : (tensor<?x?x8xf32>, tensor<?x8xf32>) -> ()
    "parc.boundary"(%d2, %zeros) {domain = #once, to = #end, of = #whole} : (tensor<?x?x8xf32>, tensor<?x8xf32>) -> ()
    "parc.boundary"(%d3, %zeros) {domain = #once, to = #end, of = #whole} : (tensor<?x?x8xf32>, tensor<?x8xf32>) -> ()
    "parc.equation"() ({
    ^bb0(%t: index):
      %own = "parc.read"(%d3) {at = #next} : (tensor<?x?x8xf32>) -> tensor<?x8xf32>
      %a = linalg.matmul ins(%own, %Ut : tensor<?x8xf32>, tensor<8x8xf32>) outs(%zeros : tensor<?x8xf32>) -> tensor<?x8xf32>
      %b = "parc.read"(%g) {at = #here} : (tensor<?x?x8xf32>) -> tensor<?x8xf32>
      %dh = linalg.add ins(%a, %b : tensor<?x8xf32>, tensor<?x8xf32>) outs(%e : tensor<?x8xf32>) -> tensor<?x8xf32>
      %f = "parc.read"(%e3) {at = #here} : (tensor<?x?x8xf32>) -> tensor<?x8xf32>
      %d = linalg.mul ins(%f, %dh : tensor<?x8xf32>, tensor<?x8xf32>) outs(%e : tensor<?x8xf32>) -> tensor<?x8xf32>
      "parc.write"(%d, %d3) {at = #here} : (tensor<?x8xf32>, tensor<?x?x8xf32>) -> ()
    }) {name = "adjoint3", domain = #steps} : () -> ()
    "parc.equation"() ({
    ^bb0(%t: index):
      %own = "parc.read"(%d2) {at = #next} : (tensor<?x?x8xf32>) -> tensor<?x8xf32>
      %a = linalg.matmul ins(%own, %Ut : tensor<?x8xf32>, tensor<8x8xf32>) outs(%zeros : tensor<?x8xf32>) -> tensor<?x8xf32>
      %above = "parc.read"(%d3) {at = #here} : (tensor<?x?x8xf32>) -> tensor<?x8xf32>
      %b = linalg.matmul ins(%above, %Wt : tensor<?x8xf32>, tensor<8x8xf32>) outs(%zeros : tensor<?x8xf32>) -> tensor<?x8xf32>
      %dh = linalg.add ins(%a, %b : tensor<?x8xf32>, tensor<?x8xf32>) outs(%e : tensor<?x8xf32>) -> tensor<?x8xf32>
      %f = "parc.read"(%e2) {at = #here} : (tensor<?x?x8xf32>) -> tensor<?x8xf32>
      %d = linalg.mul ins(%f, %dh : tensor<?x8xf32>, tensor<?x8xf32>) outs(%e : tensor<?x8xf32>) -> tensor<?x8xf32>
      "parc.write"(%d, %d2) {at = #here} : (tensor<?x8xf32>, tensor<?x?x8xf32>) -> ()
    }) {name = "adjoint2", domain = #steps} : () -> ()
    "parc.equation"() ({
    ^bb0(%t: index):
      %own = "parc.read"(%d1) {at = #next} : (tensor<?x?x8xf32>) -> tensor<?x8xf32>
      %a = linalg.matmul ins(%own, %Ut : tensor<?x8xf32>, tensor<8x8xf32>) outs(%zeros : tensor<?x8xf32>) -> tensor<?x8xf32>
      %above = "parc.read"(%d2) {at = #here} : (tensor<?x?x8xf32>) -> tensor<?x8xf32>
      %b = linalg.matmul ins(%above, %Wt : tensor<?x8xf32>, tensor<8x8xf32>) outs(%zeros : tensor<?x8xf32>) -> tensor<?x8xf32>
      %dh = linalg.add ins(%a, %b : tensor<?x8xf32>, tensor<?x8xf32>) outs(%e : tensor<?x8xf32>) -> tensor<?x8xf32>
      %f = "parc.read"(%e1) {at = #here} : (tensor<?x?x8xf32>) -> tensor<?x8xf32>
      %d = linalg.mul ins(%f, %dh : tensor<?x8xf32>, tensor<?x8xf32>) outs(%e : tensor<?x8xf32>) -> tensor<?x8xf32>
      "parc.write"(%d, %d1) {at = #here} : (tensor<?x8xf32>, tensor<?x?x8xf32>) -> ()
    }) {name = "adjoint1", domain = #steps} : () -> ()
    "parc.equation"() ({
    ^bb0(%t: index):
      %own = "parc.read"(%d0) {at = #next} : (tensor<?x?x8xf32>) -> tensor<?x8xf32>
      %a = linalg.matmul ins(%own, %Ut : tensor<?x8xf32>, tensor<8x8xf32>) outs(%zeros : tensor<?x8xf32>) -> tensor<?x8xf32>
      %above = "parc.read"(%d1) {at = #here} : (tensor<?x?x8xf32>) -> tensor<?x8xf32>
      %b = linalg.matmul ins(%above, %Wt : tensor<?x8xf32>, tensor<8x8xf32>) outs(%zeros : tensor<?x8xf32>) -> tensor<?x8xf32>
      %dh = linalg.add ins(%a, %b : tensor<?x8xf32>, tensor<?x8xf32>) outs(%e : tensor<?x8xf32>) -> tensor<?x8xf32>
      %f = "parc.read"(%e0) {at = #here} : (tensor<?x?x8xf32>) -> tensor<?x8xf32>
      %d = linalg.mul ins(%f, %dh : tensor<?x8xf32>, tensor<?x8xf32>) outs(%e : tensor<?x8xf32>) -> tensor<?x8xf32>
      "parc.write"(%d, %d0) {at = #here} : (tensor<?x8xf32>, tensor<?x?x8xf32>) -> ()
    }) {name = "adjoint0", domain = #steps} : () -> ()
  }) {symbols = ["T", "B"]} : (index, index) -> !parc.solution
  %d = "parc.array"(%s) {name = "d0"} : (!parc.solution) -> tensor<?x?x8xf32>
  return %d : tensor<?x?x8xf32>
}
