// RUN: parc-opt %s | parc-opt | filecheck %s
// RUN: parc-opt %s --emit-bytecode | parc-opt | filecheck %s

// CHECK: #[[STEP:.*]] = affine_map<(d0)[s0, s1] -> (d0 + 1)>
// CHECK: #[[TIME:.*]] = affine_set<(d0)[s0, s1] : (d0 >= 0, -d0 + s0 - 1 >= 0)>
// CHECK: %[[S:.*]] = "parc.system"(%{{.*}}, %{{.*}}) ({
// CHECK: %[[H:.*]] = "parc.unknown"() {name = "H", shape = #{{.*}}} : () -> tensor<?x?x8xf32>
// CHECK: "parc.boundary"(%[[H]], %{{.*}}) {domain = #{{.*}}, of = #{{.*}}, to = #{{.*}}}
// CHECK: "parc.equation"() ({
// CHECK: ^bb0(%{{.*}}: index):
// CHECK: "parc.read"(%{{.*}}) {at = #{{.*}}} : (tensor<?x?x8xf32>) -> tensor<?x8xf32>
// CHECK: "parc.write"(%{{.*}}, %[[H]]) {at = #[[STEP]]}
// CHECK: }) {domain = #[[TIME]], name = "cell"} : () -> ()
// CHECK: }) {symbols = ["T", "B"]} : (index, index) -> !parc.solution
// CHECK: "parc.array"(%[[S]]) {name = "H"} : (!parc.solution) -> tensor<?x?x8xf32>

// A one-layer recurrence with symbolic length and batch.
func.func @main(%x: tensor<?x?x8xf32>, %U: tensor<8x8xf32>, %h0: tensor<?x8xf32>) -> tensor<?x?x8xf32> {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %T = tensor.dim %x, %c0 : tensor<?x?x8xf32>
  %B = tensor.dim %x, %c1 : tensor<?x?x8xf32>
  %s = "parc.system"(%T, %B) ({
    %h = "parc.unknown"() {name = "H", shape = affine_map<()[T, B] -> (T + 1, B, 8)>} : () -> tensor<?x?x8xf32>
    "parc.boundary"(%h, %h0) {domain = affine_set<()[T, B] : (0 == 0)>, to = affine_map<()[T, B] -> (0)>, of = affine_map<()[T, B] -> ()>} : (tensor<?x?x8xf32>, tensor<?x8xf32>) -> ()
    "parc.equation"() ({
    ^bb0(%t: index):
      %xt = "parc.read"(%x) {at = affine_map<(t)[T, B] -> (t)>} : (tensor<?x?x8xf32>) -> tensor<?x8xf32>
      %ht = "parc.read"(%h) {at = affine_map<(t)[T, B] -> (t)>} : (tensor<?x?x8xf32>) -> tensor<?x8xf32>
      %zero = arith.constant 0.0 : f32
      %e = tensor.empty(%B) : tensor<?x8xf32>
      %f = linalg.fill ins(%zero : f32) outs(%e : tensor<?x8xf32>) -> tensor<?x8xf32>
      %p = linalg.matmul ins(%ht, %U : tensor<?x8xf32>, tensor<8x8xf32>) outs(%f : tensor<?x8xf32>) -> tensor<?x8xf32>
      %n = linalg.generic {indexing_maps = [affine_map<(i, j) -> (i, j)>, affine_map<(i, j) -> (i, j)>, affine_map<(i, j) -> (i, j)>], iterator_types = ["parallel", "parallel"]}
        ins(%p, %xt : tensor<?x8xf32>, tensor<?x8xf32>) outs(%e : tensor<?x8xf32>) {
      ^bb0(%a: f32, %b: f32, %o: f32):
        %sum = arith.addf %a, %b : f32
        %y = math.tanh %sum : f32
        linalg.yield %y : f32
      } -> tensor<?x8xf32>
      "parc.write"(%n, %h) {at = affine_map<(t)[T, B] -> (t + 1)>} : (tensor<?x8xf32>, tensor<?x?x8xf32>) -> ()
    }) {name = "cell", domain = affine_set<(t)[T, B] : (t >= 0, -t + T - 1 >= 0)>} : () -> ()
  }) {symbols = ["T", "B"]} : (index, index) -> !parc.solution
  %H = "parc.array"(%s) {name = "H"} : (!parc.solution) -> tensor<?x?x8xf32>
  return %H : tensor<?x?x8xf32>
}
