// RUN: parc-opt %s --emit=schedule --strategy=wavefront --sizes=T=16 | filecheck %s
// RUN: parc-opt %s --parc-wavefront | filecheck %s --check-prefix=PASS
// RUN: parc-opt %s --pass-pipeline="wavefront{threads=2}" | filecheck %s --check-prefix=PASS
// RUN: parc-opt %s --emit=schedule --strategy=wavefront | parc-opt --emit=loops | filecheck %s --check-prefix=LOOPS
// RUN: not parc-opt %s --emit=schedule --sizes=T 2>&1 | filecheck %s --check-prefix=SIZES
// RUN: not parc-opt %s --emit=schedule --strategy=fastest 2>&1 | filecheck %s --check-prefix=STRATEGY

// Three layers run in T + 2 waves. The comment on top tells; a later stage starts from the text below it.

// CHECK: //   strategy: wavefront
// CHECK: //   waves: T + 2 = 18
// CHECK: strategy = "wavefront"
// PASS-NOT: waves
// PASS: strategy = "wavefront"
// LOOPS: "parc.team"
// SIZES: parc-opt: error: --sizes is written like T=128,B=16, not 'T'
// STRATEGY: emit_schedule.mlir: error: {{.*}}fastest
#here = affine_map<(t)[T] -> (t)>
#next = affine_map<(t)[T] -> (t + 1)>
#start = affine_map<()[T] -> (0)>
#whole = affine_map<()[T] -> ()>
#once = affine_set<()[T] : (0 == 0)>
#steps = affine_set<(t)[T] : (t >= 0, T - 1 - t >= 0)>
#states = affine_map<()[T] -> (T + 1, 4, 8)>
func.func @main(%x: tensor<?x4x8xf32>, %h0: tensor<4x8xf32>, %u: tensor<8x8xf32>) -> tensor<?x4x8xf32> {
  %c0 = arith.constant 0 : index
  %T = tensor.dim %x, %c0 : tensor<?x4x8xf32>
  %s = "parc.system"(%T) ({
    %a = "parc.unknown"() {name = "A", shape = #states} : () -> tensor<?x4x8xf32>
    %b = "parc.unknown"() {name = "B", shape = #states} : () -> tensor<?x4x8xf32>
    %c = "parc.unknown"() {name = "C", shape = #states} : () -> tensor<?x4x8xf32>
    "parc.boundary"(%a, %h0) {domain = #once, to = #start, of = #whole} : (tensor<?x4x8xf32>, tensor<4x8xf32>) -> ()
    "parc.boundary"(%b, %h0) {domain = #once, to = #start, of = #whole} : (tensor<?x4x8xf32>, tensor<4x8xf32>) -> ()
    "parc.boundary"(%c, %h0) {domain = #once, to = #start, of = #whole} : (tensor<?x4x8xf32>, tensor<4x8xf32>) -> ()
    "parc.equation"() ({
    ^bb0(%t: index):
      %below = "parc.read"(%x) {at = #here} : (tensor<?x4x8xf32>) -> tensor<4x8xf32>
      %before = "parc.read"(%a) {at = #here} : (tensor<?x4x8xf32>) -> tensor<4x8xf32>
      %new = linalg.matmul ins(%before, %u : tensor<4x8xf32>, tensor<8x8xf32>) outs(%below : tensor<4x8xf32>) -> tensor<4x8xf32>
      "parc.write"(%new, %a) {at = #next} : (tensor<4x8xf32>, tensor<?x4x8xf32>) -> ()
    }) {name = "cell0", domain = #steps} : () -> ()
    "parc.equation"() ({
    ^bb0(%t: index):
      %below = "parc.read"(%a) {at = #next} : (tensor<?x4x8xf32>) -> tensor<4x8xf32>
      %before = "parc.read"(%b) {at = #here} : (tensor<?x4x8xf32>) -> tensor<4x8xf32>
      %new = linalg.matmul ins(%before, %u : tensor<4x8xf32>, tensor<8x8xf32>) outs(%below : tensor<4x8xf32>) -> tensor<4x8xf32>
      "parc.write"(%new, %b) {at = #next} : (tensor<4x8xf32>, tensor<?x4x8xf32>) -> ()
    }) {name = "cell1", domain = #steps} : () -> ()
    "parc.equation"() ({
    ^bb0(%t: index):
      %below = "parc.read"(%b) {at = #next} : (tensor<?x4x8xf32>) -> tensor<4x8xf32>
      %before = "parc.read"(%c) {at = #here} : (tensor<?x4x8xf32>) -> tensor<4x8xf32>
      %new = linalg.matmul ins(%before, %u : tensor<4x8xf32>, tensor<8x8xf32>) outs(%below : tensor<4x8xf32>) -> tensor<4x8xf32>
      "parc.write"(%new, %c) {at = #next} : (tensor<4x8xf32>, tensor<?x4x8xf32>) -> ()
    }) {name = "cell2", domain = #steps} : () -> ()
  }) {symbols = ["T"]} : (index) -> !parc.solution
  %out = "parc.array"(%s) {name = "C"} : (!parc.solution) -> tensor<?x4x8xf32>
  return %out : tensor<?x4x8xf32>
}
