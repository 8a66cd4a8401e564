// RUN: parc-opt %s --parc-chunk-steps --split-input-file | filecheck %s
// RUN: parc-opt %s --parc-chunk-steps="continues=false" --split-input-file | filecheck %s --check-prefix=FIRST

// The initial state of a recurrence becomes an input, the last one a result; results over the steps stay as they are.

// CHECK-DAG: #[[ALL:.*]] = affine_map<()[s0, s1] -> ()>
// CHECK-DAG: #[[STATE:.*]] = affine_map<()[s0, s1] -> (s1, 8)>
// CHECK: func.func @main(%[[T:.*]]: index {{.*}}, %[[B:.*]]: index {{.*}}, %{{.*}}: tensor<?x?x8xf32> {{.*}}, %[[STATE0:.*]]: tensor<?x8xf32> {parc.kind = "input", parc.name = "state0", parc.shape = #[[STATE]]}, %{{.*}}: tensor<8x8xf32>
// CHECK-SAME: -> (tensor<?x?x8xf32> {parc.name = "y"}, tensor<?x8xf32> {parc.kind = "state", parc.name = "state1", parc.shape = #[[STATE]]})
// CHECK: "parc.boundary"(%{{.*}}, %[[STATE0]]) {{{.*}}of = #[[ALL]]
// CHECK: %[[H:.*]] = "parc.array"
// CHECK: %[[Y:.*]] = tensor.extract_slice %[[H]][1, 0, 0]
// CHECK: %[[END:.*]] = affine.apply #{{.*}}()[%[[T]], %[[B]]]
// CHECK: %[[LAST:.*]] = tensor.extract_slice %[[H]][%[[END]], 0, 0]
// CHECK: return %[[Y]], %[[LAST]]

// FIRST: func.func @main
// FIRST-NOT: state0
// FIRST: -> (tensor<?x?x8xf32> {parc.name = "y"}, tensor<?x8xf32> {parc.kind = "state", parc.name = "state1"
// FIRST: linalg.fill
// FIRST: "parc.boundary"

#here = affine_map<(t)[T, B] -> (t)>
func.func @main(%T: index {parc.kind = "symbol", parc.name = "T"}, %B: index {parc.kind = "symbol", parc.name = "B"},
    %x: tensor<?x?x8xf32> {parc.kind = "input", parc.name = "x", parc.shape = affine_map<()[T, B] -> (T, B, 8)>},
    %w: tensor<8x8xf32> {parc.kind = "parameter", parc.name = "w"}) -> (tensor<?x?x8xf32> {parc.name = "y"}) {
  %zero = arith.constant 0.0 : f32
  %e = tensor.empty(%B) : tensor<?x8xf32>
  %h0 = linalg.fill ins(%zero : f32) outs(%e : tensor<?x8xf32>) -> tensor<?x8xf32>
  %s = "parc.system"(%T, %B) ({
    %h = "parc.unknown"() {name = "H", shape = affine_map<()[T, B] -> (T + 1, B, 8)>} : () -> tensor<?x?x8xf32>
    "parc.boundary"(%h, %h0) {domain = affine_set<()[T, B] : (0 == 0)>, to = affine_map<()[T, B] -> (0)>,
      of = affine_map<()[T, B] -> ()>} : (tensor<?x?x8xf32>, tensor<?x8xf32>) -> ()
    "parc.equation"() ({
    ^bb0(%t: index):
      %a = "parc.read"(%x) {at = #here} : (tensor<?x?x8xf32>) -> tensor<?x8xf32>
      %b = "parc.read"(%h) {at = #here} : (tensor<?x?x8xf32>) -> tensor<?x8xf32>
      %c = linalg.matmul ins(%b, %w : tensor<?x8xf32>, tensor<8x8xf32>) outs(%a : tensor<?x8xf32>) -> tensor<?x8xf32>
      "parc.write"(%c, %h) {at = affine_map<(t)[T, B] -> (t + 1)>} : (tensor<?x8xf32>, tensor<?x?x8xf32>) -> ()
    }) {name = "cell", domain = affine_set<(t)[T, B] : (t >= 0, T - 1 - t >= 0)>} : () -> ()
  }) {symbols = ["T", "B"]} : (index, index) -> !parc.solution
  %H = "parc.array"(%s) {name = "H"} : (!parc.solution) -> tensor<?x?x8xf32>
  %y = tensor.extract_slice %H[1, 0, 0] [%T, %B, 8] [1, 1, 1] : tensor<?x?x8xf32> to tensor<?x?x8xf32>
  return %y : tensor<?x?x8xf32>
}
