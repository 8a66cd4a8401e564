// RUN: parc-opt %s --parc-chunk-steps --split-input-file --verify-diagnostics

// A program with a step that needs more than steps before it cannot run chunk by chunk.

// The sequence from its end.
#args = affine_map<()[T] -> (T, 8)>
func.func @main(%T: index {parc.kind = "symbol", parc.name = "T"},
    %x: tensor<?x8xf32> {parc.kind = "input", parc.name = "x", parc.shape = #args}) -> (tensor<?x8xf32> {parc.name = "y"}) {
  %s = "parc.system"(%T) ({
    %h = "parc.unknown"() {name = "H", shape = #args} : () -> tensor<?x8xf32>
    "parc.equation"() ({
    ^bb0(%t: index):
      // expected-error @below {{a step reads an input at another step than its own}}
      %a = "parc.read"(%x) {at = affine_map<(t)[T] -> (T - 1 - t)>} : (tensor<?x8xf32>) -> tensor<8xf32>
      "parc.write"(%a, %h) {at = affine_map<(t)[T] -> (t)>} : (tensor<8xf32>, tensor<?x8xf32>) -> ()
    }) {name = "cell", domain = affine_set<(t)[T] : (t >= 0, T - 1 - t >= 0)>} : () -> ()
  }) {symbols = ["T"]} : (index) -> !parc.solution
  %H = "parc.array"(%s) {name = "H"} : (!parc.solution) -> tensor<?x8xf32>
  return %H : tensor<?x8xf32>
}

// -----

// A sum over the steps.
#args = affine_map<()[T] -> (T, 8)>
#id = affine_map<(i, j) -> (i, j)>
func.func @main(%T: index {parc.kind = "symbol", parc.name = "T"},
    %x: tensor<?x8xf32> {parc.kind = "input", parc.name = "x", parc.shape = #args}) -> (tensor<8xf32> {parc.name = "y"}) {
  %s = "parc.system"(%T) ({
    %h = "parc.unknown"() {name = "H", shape = #args} : () -> tensor<?x8xf32>
    "parc.equation"() ({
    ^bb0(%t: index):
      %a = "parc.read"(%x) {at = affine_map<(t)[T] -> (t)>} : (tensor<?x8xf32>) -> tensor<8xf32>
      "parc.write"(%a, %h) {at = affine_map<(t)[T] -> (t)>} : (tensor<8xf32>, tensor<?x8xf32>) -> ()
    }) {name = "cell", domain = affine_set<(t)[T] : (t >= 0, T - 1 - t >= 0)>} : () -> ()
  }) {symbols = ["T"]} : (index) -> !parc.solution
  %H = "parc.array"(%s) {name = "H"} : (!parc.solution) -> tensor<?x8xf32>
  %e = tensor.empty() : tensor<8xf32>
  // expected-error @below {{'linalg.generic' takes steps together, or counts them}}
  %y = linalg.generic {indexing_maps = [#id, affine_map<(i, j) -> (j)>], iterator_types = ["reduction", "parallel"]}
      ins(%H : tensor<?x8xf32>) outs(%e : tensor<8xf32>) {
  ^bb0(%in: f32, %out: f32):
    %sum = arith.addf %in, %out : f32
    linalg.yield %sum : f32
  } -> tensor<8xf32>
  return %y : tensor<8xf32>
}

// -----

// expected-error @unknown {{the program has no recurrence that runs in chunks}}
func.func @main(%x: tensor<8xf32>) -> (tensor<8xf32> {parc.name = "y"}) {
  return %x : tensor<8xf32>
}
