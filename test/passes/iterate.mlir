// RUN: parc-opt %s --parc-iterate="solver=jacobi tolerance=1e-6" | filecheck %s
// RUN: parc-opt %s --parc-iterate="solver=jacobi-gs block=4" | filecheck %s --check-prefix=BLOCKS
// RUN: parc-opt %s --parc-iterate="solver=gs-jacobi block=4" | filecheck %s --check-prefix=WINDOWS
// RUN: parc-opt %s --parc-iterate="solver=jacobi limit=3 start=previous" | filecheck %s --check-prefix=LIMIT
// RUN: parc-opt %s --parc-iterate="solver=gauss-seidel" | filecheck %s --check-prefix=SAME
// RUN: parc-opt %s --parc-iterate="solver=jacobi-gs block=4" --parc-schedule --parc-verify-schedule

// Two layers: h[t + 1] = tanh(h[t] + x[t]), and g[t + 1] = g[t] + h[t + 1]. Step t of the second one is one deeper than
// that of the first.

// A sweep computes everything from the last iterate, but what is final.
// CHECK-DAG: #[[START:.+]] = affine_set<(d0)[s0] : (-d0 + s0 >= 0, d0 - 1 >= 0)>
// CHECK-DAG: #[[FIRST:.+]] = affine_set<(d0)[s0, s1] : (-d0 + s0 - 1 >= 0, d0 - s1 >= 0)>
// CHECK-DAG: #[[SECOND:.+]] = affine_set<(d0)[s0, s1] : (-d0 + s0 - 1 >= 0, d0 >= 0, d0 - s1 + 1 >= 0)>
// CHECK-DAG: #[[FINAL:.+]] = affine_set<(d0)[s0, s1] : (-d0 + s0 >= 0, -d0 + s1 >= 0, d0 >= 0)>
// The first iterate: zeros, and what is given.
// CHECK: "parc.system"
// CHECK: "parc.boundary"
// CHECK: domain = #[[START]], name = "H_kept"
// CHECK: "parc.iterate"
// CHECK-NEXT: ^bb0(%[[K:.+]]: index):
// CHECK: %[[H:.+]] = "parc.previous"(%{{.*}}) {name = "H"}
// CHECK: %[[G:.+]] = "parc.previous"(%{{.*}}) {name = "G"}
// CHECK: "parc.system"(%{{.*}}, %[[K]])
// CHECK: "parc.read"(%[[H]])
// CHECK: domain = #[[FIRST]], name = "first"
// CHECK: "parc.read"(%[[G]])
// CHECK: "parc.read"(%[[H]])
// CHECK: domain = #[[SECOND]], name = "second"
// CHECK: domain = #[[FINAL]], name = "H_kept"
// CHECK: symbols = ["T", "k"]
// CHECK: "parc.change"
// CHECK: arrays = ["H", "G"]
// CHECK-SAME: name = "first", solver = "jacobi"
// CHECK-SAME: the dependences are T + 1 deep: exact after T + 1 sweeps
// CHECK-COUNT-2: "parc.iterated"

// Blocks of four depths: only the first step of a block takes the last iterate. Blocks are dealt out.
// BLOCKS-DAG: affine_set<(d0, d1)[s0, s1] : (d0 * -4 + s0 - 1 >= 0, d0 - s1 >= 0, d1 == 0)>
// BLOCKS-DAG: #[[OWN:.+]] = affine_map<(d0, d1)[s0, s1] -> (d0)>
// BLOCKS-DAG: #[[STEP:.+]] = affine_map<(d0, d1)[s0, s1] -> (1, d1, 0)>
// BLOCKS: "parc.iterate"
// BLOCKS: name = "first", owner = #[[OWN]], schedule = #[[STEP]]
// BLOCKS: name = "first_1", owner = #[[OWN]], schedule = #[[STEP]]
// BLOCKS: distribute = "points", strategy = "jacobi-gs"
// BLOCKS: solver = "jacobi-gs"
// BLOCKS-SAME: exact after (T + 1) ceildiv 4 sweeps

// Windows of four depths: which one it is, is an iterate too.
// WINDOWS: "parc.previous"(%{{.*}}) {name = "done"}
// WINDOWS: sizes = {end = 4 : index, k = 0 : index}, symbols = ["T", "k", "end"]
// WINDOWS: "parc.next"(%{{.*}}) {name = "done"}
// WINDOWS: solver = "gs-jacobi"

// What three sweeps do not solve is computed as it is written.
// LIMIT: @main(%{{.*}}: index {{{.*}}}, %{{.*}}: tensor<?x8xf32> {{{.*}}}, %[[FROM:.+]]: tensor<?x8xf32> {parc.kind = "start", parc.name = "first.H", parc.shape = {{.*}}}
// LIMIT: "parc.read"(%[[FROM]])
// LIMIT: arith.minsi
// LIMIT: "parc.change"
// LIMIT: name = "first"
// LIMIT: name = "second"
// LIMIT: "parc.next"(%{{.*}}) {name = "H"}
// LIMIT: start = "previous"
// LIMIT: %[[LAST:.+]] = "parc.iterated"(%{{.*}}) {name = "H"}
// LIMIT: return %{{.*}}, %[[LAST]], %{{.*}}

// SAME-NOT: "parc.iterate"
#id = affine_map<(i) -> (i)>
#here = affine_map<(t)[T] -> (t)>
#next = affine_map<(t)[T] -> (t + 1)>
#steps = affine_set<(t)[T] : (t >= 0, T - 1 - t >= 0)>
#states = affine_map<()[T] -> (T + 1, 8)>
func.func @main(%T: index {parc.kind = "symbol", parc.name = "T"}, %x: tensor<?x8xf32> {parc.kind = "input", parc.name = "x"}, %h0: tensor<8xf32> {parc.kind = "parameter", parc.name = "h0"}) -> tensor<?x8xf32> {
  %e = tensor.empty() : tensor<8xf32>
  %s = "parc.system"(%T) ({
    %h = "parc.unknown"() {name = "H", shape = #states} : () -> tensor<?x8xf32>
    %g = "parc.unknown"() {name = "G", shape = #states} : () -> tensor<?x8xf32>
    "parc.boundary"(%h, %h0) {domain = affine_set<()[T] : (0 == 0)>, to = affine_map<()[T] -> (0)>, of = affine_map<()[T] -> ()>} : (tensor<?x8xf32>, tensor<8xf32>) -> ()
    "parc.boundary"(%g, %h0) {domain = affine_set<()[T] : (0 == 0)>, to = affine_map<()[T] -> (0)>, of = affine_map<()[T] -> ()>} : (tensor<?x8xf32>, tensor<8xf32>) -> ()
    "parc.equation"() ({
    ^bb0(%t: index):
      %ht = "parc.read"(%h) {at = #here} : (tensor<?x8xf32>) -> tensor<8xf32>
      %xt = "parc.read"(%x) {at = #here} : (tensor<?x8xf32>) -> tensor<8xf32>
      %new = linalg.generic {indexing_maps = [#id, #id, #id], iterator_types = ["parallel"]} ins(%ht, %xt : tensor<8xf32>, tensor<8xf32>) outs(%e : tensor<8xf32>) {
      ^bb0(%hi: f32, %xi: f32, %out: f32):
        %p = arith.addf %hi, %xi : f32
        %q = math.tanh %p : f32
        linalg.yield %q : f32
      } -> tensor<8xf32>
      "parc.write"(%new, %h) {at = #next} : (tensor<8xf32>, tensor<?x8xf32>) -> ()
    }) {name = "first", domain = #steps} : () -> ()
    "parc.equation"() ({
    ^bb0(%t: index):
      %gt = "parc.read"(%g) {at = #here} : (tensor<?x8xf32>) -> tensor<8xf32>
      %ht = "parc.read"(%h) {at = #next} : (tensor<?x8xf32>) -> tensor<8xf32>
      %new = arith.addf %gt, %ht : tensor<8xf32>
      "parc.write"(%new, %g) {at = #next} : (tensor<8xf32>, tensor<?x8xf32>) -> ()
    }) {name = "second", domain = #steps} : () -> ()
  }) {symbols = ["T"]} : (index) -> !parc.solution
  %G = "parc.array"(%s) {name = "G"} : (!parc.solution) -> tensor<?x8xf32>
  return %G : tensor<?x8xf32>
}
