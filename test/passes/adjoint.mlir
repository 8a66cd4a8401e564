// RUN: parc-opt %s --parc-adjoint --split-input-file | filecheck %s

// A recurrence: the adjoint system reads at t + 1 what it writes at t, and starts from zero at the end. The forward
// system keeps the new state alone; the gradient of the weights is one contraction over all steps.

// CHECK-DAG: #[[LONGER:map[0-9]*]] = affine_map<()[s0, s1] -> (s0 + 1, s1, 8)>
// CHECK-DAG: #[[SAME:map[0-9]*]] = affine_map<(d0)[s0, s1] -> (d0)>
// CHECK-DAG: #[[NEXT:map[0-9]*]] = affine_map<(d0)[s0, s1] -> (d0 + 1)>
// CHECK-DAG: #[[LAST:set[0-9]*]] = affine_set<(d0)[s0, s1] : (d0 - s0 == 0,
// CHECK-LABEL: func.func @main
// CHECK-SAME: -> (tensor<?x?x8xf32> {parc.shape
// CHECK-SAME: tensor<?x?x8xf32> {parc.kind = "saved", parc.name = "saved0"
// CHECK-LABEL: func.func @backward
// CHECK-SAME: parc.name = "gradient0"
// CHECK-SAME: parc.name = "saved0"
// CHECK-SAME: parc.kind = "parameter", parc.name = "u"
// CHECK: %[[D:[0-9]+]] = "parc.unknown"() {name = "cell_d0", shape = #[[LONGER]]}
// CHECK: "parc.boundary"(%[[D]], %{{[0-9]+}}) {domain = #[[LAST]],
// CHECK: "parc.equation"()
// CHECK: "parc.read"(%arg2) {at = #[[NEXT]]}
// CHECK: %[[N:[0-9]+]] = "parc.read"(%[[D]]) {at = #[[NEXT]]}
// CHECK: linalg.matmul ins(%[[N]], %{{.*}} : tensor<?x8xf32>, tensor<8x8xf32>)
// CHECK: "parc.write"(%{{.*}}, %[[D]]) {at = #[[SAME]]}
// CHECK: name = "cell_adjoint"
// CHECK: linalg.generic
// CHECK-SAME: iterator_types = ["reduction", "reduction", "parallel", "parallel"]
#step = affine_map<(t)[T, B] -> (t)>
#next = affine_map<(t)[T, B] -> (t + 1)>
#shape = affine_map<()[T, B] -> (T + 1, B, 8)>
#in = affine_map<()[T, B] -> (T, B, 8)>
#matrix = affine_map<(d0, d1) -> (d0, d1)>
func.func @main(%T: index {parc.kind = "symbol", parc.name = "T"}, %B: index {parc.kind = "symbol", parc.name = "B"},
                %x: tensor<?x?x8xf32> {parc.kind = "input", parc.name = "x", parc.shape = #in},
                %u: tensor<8x8xf32> {parc.kind = "parameter", parc.name = "u", parc.shape = affine_map<()[T, B] -> (8, 8)>})
    -> (tensor<?x?x8xf32> {parc.shape = #shape}) {
  %zero = arith.constant 0.0 : f32
  %empty = tensor.empty(%B) : tensor<?x8xf32>
  %start = linalg.fill ins(%zero : f32) outs(%empty : tensor<?x8xf32>) -> tensor<?x8xf32>
  %s = "parc.system"(%T, %B) ({
    %h = "parc.unknown"() {name = "H", shape = #shape} : () -> tensor<?x?x8xf32>
    "parc.boundary"(%h, %start) {domain = affine_set<()[T, B] : (0 == 0)>, of = affine_map<()[T, B] -> ()>,
      to = affine_map<()[T, B] -> (0)>} : (tensor<?x?x8xf32>, tensor<?x8xf32>) -> ()
    "parc.equation"() ({
    ^bb0(%t: index):
      %xt = "parc.read"(%x) {at = #step} : (tensor<?x?x8xf32>) -> tensor<?x8xf32>
      %ht = "parc.read"(%h) {at = #step} : (tensor<?x?x8xf32>) -> tensor<?x8xf32>
      %p = linalg.matmul ins(%ht, %u : tensor<?x8xf32>, tensor<8x8xf32>) outs(%start : tensor<?x8xf32>) -> tensor<?x8xf32>
      %new = linalg.generic {indexing_maps = [#matrix, #matrix, #matrix], iterator_types = ["parallel", "parallel"]}
          ins(%xt, %p : tensor<?x8xf32>, tensor<?x8xf32>) outs(%empty : tensor<?x8xf32>) {
      ^bb0(%a: f32, %b: f32, %out: f32):
        %sum = arith.addf %a, %b : f32
        %y = math.tanh %sum : f32
        linalg.yield %y : f32
      } -> tensor<?x8xf32>
      "parc.write"(%new, %h) {at = #next} : (tensor<?x8xf32>, tensor<?x?x8xf32>) -> ()
    }) {name = "cell", domain = affine_set<(t)[T, B] : (t >= 0, -t + T - 1 >= 0)>} : () -> ()
  }) {symbols = ["T", "B"]} : (index, index) -> !parc.solution
  %H = "parc.array"(%s) {name = "H"} : (!parc.solution) -> tensor<?x?x8xf32>
  return %H : tensor<?x?x8xf32>
}
