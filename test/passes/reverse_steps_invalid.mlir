// RUN: parc-opt %s --parc-reverse-steps --split-input-file --verify-diagnostics

// A cell that is not reversible: the reason, at the write of the state.

// The old state counts by a factor: rounding errors would grow with its powers.
#here = affine_map<(t)[T, B] -> (t)>
#next = affine_map<(t)[T, B] -> (t + 1)>
#first = affine_map<()[T, B] -> (0)>
#all = affine_map<()[T, B] -> ()>
#always = affine_set<()[T, B] : (0 == 0)>
#longer = affine_map<()[T, B] -> (T + 1, B, 8)>
#state = affine_map<()[T, B] -> (B, 8)>
#id = affine_map<(d0, d1) -> (d0, d1)>
func.func @main(%T: index {parc.kind = "symbol", parc.name = "T"}, %B: index {parc.kind = "symbol", parc.name = "B"},
    %a0: tensor<?x8xf32> {parc.kind = "input", parc.name = "state0", parc.shape = #state},
    %b0: tensor<?x8xf32> {parc.kind = "input", parc.name = "state1", parc.shape = #state})
    -> (tensor<?x?x8xf32>, tensor<?x8xf32> {parc.kind = "state"}, tensor<?x8xf32> {parc.kind = "state"},
        tensor<?x?x8xf32> {parc.kind = "saved"}) {
  %e = tensor.empty(%B) : tensor<?x8xf32>
  %s = "parc.system"(%T, %B) ({
    %a = "parc.unknown"() {name = "A", shape = #longer} : () -> tensor<?x?x8xf32>
    %b = "parc.unknown"() {name = "B", shape = #longer} : () -> tensor<?x?x8xf32>
    "parc.boundary"(%a, %a0) {domain = #always, to = #first, of = #all} : (tensor<?x?x8xf32>, tensor<?x8xf32>) -> ()
    "parc.boundary"(%b, %b0) {domain = #always, to = #first, of = #all} : (tensor<?x?x8xf32>, tensor<?x8xf32>) -> ()
    "parc.equation"() ({
    ^bb0(%t: index):
      %at = "parc.read"(%a) {at = #here} : (tensor<?x?x8xf32>) -> tensor<?x8xf32>
      %bt = "parc.read"(%b) {at = #here} : (tensor<?x?x8xf32>) -> tensor<?x8xf32>
      %f = linalg.generic {indexing_maps = [#id, #id], iterator_types = ["parallel", "parallel"]}
          ins(%bt : tensor<?x8xf32>) outs(%e : tensor<?x8xf32>) {
      ^bb0(%x: f32, %out: f32):
        %y = math.tanh %x : f32
        linalg.yield %y : f32
      } -> tensor<?x8xf32>
      %an = linalg.generic {indexing_maps = [#id, #id, #id], iterator_types = ["parallel", "parallel"]}
          ins(%at, %f : tensor<?x8xf32>, tensor<?x8xf32>) outs(%e : tensor<?x8xf32>) {
      ^bb0(%x: f32, %y: f32, %out: f32):
        %half = arith.constant 0.5 : f32
        %w = arith.mulf %x, %half : f32
        %z = arith.addf %w, %y : f32
        linalg.yield %z : f32
      } -> tensor<?x8xf32>
      %bn = linalg.generic {indexing_maps = [#id, #id, #id], iterator_types = ["parallel", "parallel"]}
          ins(%bt, %an : tensor<?x8xf32>, tensor<?x8xf32>) outs(%e : tensor<?x8xf32>) {
      ^bb0(%x: f32, %y: f32, %out: f32):
        %z = arith.subf %x, %y : f32
        linalg.yield %z : f32
      } -> tensor<?x8xf32>
      // expected-error @below {{the new A is no sum of a state before and of what follows from others}}
      "parc.write"(%an, %a) {at = #next} : (tensor<?x8xf32>, tensor<?x?x8xf32>) -> ()
      "parc.write"(%bn, %b) {at = #next} : (tensor<?x8xf32>, tensor<?x?x8xf32>) -> ()
    }) {name = "cell", domain = affine_set<(t)[T, B] : (t >= 0, T - 1 - t >= 0)>} : () -> ()
  }) {symbols = ["T", "B"]} : (index, index) -> !parc.solution
  %A = "parc.array"(%s) {name = "A"} : (!parc.solution) -> tensor<?x?x8xf32>
  %B_ = "parc.array"(%s) {name = "B"} : (!parc.solution) -> tensor<?x?x8xf32>
  %y = tensor.extract_slice %B_[1, 0, 0] [%T, %B, 8] [1, 1, 1] : tensor<?x?x8xf32> to tensor<?x?x8xf32>
  %last_a = tensor.extract_slice %A[%T, 0, 0] [1, %B, 8] [1, 1, 1] : tensor<?x?x8xf32> to tensor<?x8xf32>
  %last_b = tensor.extract_slice %B_[%T, 0, 0] [1, %B, 8] [1, 1, 1] : tensor<?x?x8xf32> to tensor<?x8xf32>
  return %y, %last_a, %last_b, %A : tensor<?x?x8xf32>, tensor<?x8xf32>, tensor<?x8xf32>, tensor<?x?x8xf32>
}

// -----

// Both new states take the old ones: neither of these can be computed first.
#here = affine_map<(t)[T, B] -> (t)>
#next = affine_map<(t)[T, B] -> (t + 1)>
#first = affine_map<()[T, B] -> (0)>
#all = affine_map<()[T, B] -> ()>
#always = affine_set<()[T, B] : (0 == 0)>
#longer = affine_map<()[T, B] -> (T + 1, B, 8)>
#state = affine_map<()[T, B] -> (B, 8)>
#id = affine_map<(d0, d1) -> (d0, d1)>
func.func @main(%T: index {parc.kind = "symbol", parc.name = "T"}, %B: index {parc.kind = "symbol", parc.name = "B"},
    %a0: tensor<?x8xf32> {parc.kind = "input", parc.name = "state0", parc.shape = #state},
    %b0: tensor<?x8xf32> {parc.kind = "input", parc.name = "state1", parc.shape = #state})
    -> (tensor<?x?x8xf32>, tensor<?x8xf32> {parc.kind = "state"}, tensor<?x8xf32> {parc.kind = "state"},
        tensor<?x?x8xf32> {parc.kind = "saved"}) {
  %e = tensor.empty(%B) : tensor<?x8xf32>
  %s = "parc.system"(%T, %B) ({
    %a = "parc.unknown"() {name = "A", shape = #longer} : () -> tensor<?x?x8xf32>
    %b = "parc.unknown"() {name = "B", shape = #longer} : () -> tensor<?x?x8xf32>
    "parc.boundary"(%a, %a0) {domain = #always, to = #first, of = #all} : (tensor<?x?x8xf32>, tensor<?x8xf32>) -> ()
    "parc.boundary"(%b, %b0) {domain = #always, to = #first, of = #all} : (tensor<?x?x8xf32>, tensor<?x8xf32>) -> ()
    "parc.equation"() ({
    ^bb0(%t: index):
      %at = "parc.read"(%a) {at = #here} : (tensor<?x?x8xf32>) -> tensor<?x8xf32>
      %bt = "parc.read"(%b) {at = #here} : (tensor<?x?x8xf32>) -> tensor<?x8xf32>
      %f = linalg.generic {indexing_maps = [#id, #id], iterator_types = ["parallel", "parallel"]}
          ins(%bt : tensor<?x8xf32>) outs(%e : tensor<?x8xf32>) {
      ^bb0(%x: f32, %out: f32):
        %y = math.tanh %x : f32
        linalg.yield %y : f32
      } -> tensor<?x8xf32>
      %an = linalg.generic {indexing_maps = [#id, #id, #id], iterator_types = ["parallel", "parallel"]}
          ins(%at, %f : tensor<?x8xf32>, tensor<?x8xf32>) outs(%e : tensor<?x8xf32>) {
      ^bb0(%x: f32, %y: f32, %out: f32):
        %z = arith.addf %x, %y : f32
        linalg.yield %z : f32
      } -> tensor<?x8xf32>
      %bn = linalg.generic {indexing_maps = [#id, #id, #id], iterator_types = ["parallel", "parallel"]}
          ins(%bt, %at : tensor<?x8xf32>, tensor<?x8xf32>) outs(%e : tensor<?x8xf32>) {
      ^bb0(%x: f32, %y: f32, %out: f32):
        %z = arith.subf %x, %y : f32
        linalg.yield %z : f32
      } -> tensor<?x8xf32>
      // expected-error @below {{the states before a step need each other: there is no first one to compute}}
      "parc.write"(%an, %a) {at = #next} : (tensor<?x8xf32>, tensor<?x?x8xf32>) -> ()
      "parc.write"(%bn, %b) {at = #next} : (tensor<?x8xf32>, tensor<?x?x8xf32>) -> ()
    }) {name = "cell", domain = affine_set<(t)[T, B] : (t >= 0, T - 1 - t >= 0)>} : () -> ()
  }) {symbols = ["T", "B"]} : (index, index) -> !parc.solution
  %A = "parc.array"(%s) {name = "A"} : (!parc.solution) -> tensor<?x?x8xf32>
  %B_ = "parc.array"(%s) {name = "B"} : (!parc.solution) -> tensor<?x?x8xf32>
  %y = tensor.extract_slice %B_[1, 0, 0] [%T, %B, 8] [1, 1, 1] : tensor<?x?x8xf32> to tensor<?x?x8xf32>
  %last_a = tensor.extract_slice %A[%T, 0, 0] [1, %B, 8] [1, 1, 1] : tensor<?x?x8xf32> to tensor<?x8xf32>
  %last_b = tensor.extract_slice %B_[%T, 0, 0] [1, %B, 8] [1, 1, 1] : tensor<?x?x8xf32> to tensor<?x8xf32>
  return %y, %last_a, %last_b, %A : tensor<?x?x8xf32>, tensor<?x8xf32>, tensor<?x8xf32>, tensor<?x?x8xf32>
}

// -----

// Additions of narrow numbers lose what the reversed ones would need.
#here = affine_map<(t)[T, B] -> (t)>
#next = affine_map<(t)[T, B] -> (t + 1)>
#first = affine_map<()[T, B] -> (0)>
#all = affine_map<()[T, B] -> ()>
#always = affine_set<()[T, B] : (0 == 0)>
#longer = affine_map<()[T, B] -> (T + 1, B, 8)>
#state = affine_map<()[T, B] -> (B, 8)>
#id = affine_map<(d0, d1) -> (d0, d1)>
func.func @main(%T: index {parc.kind = "symbol", parc.name = "T"}, %B: index {parc.kind = "symbol", parc.name = "B"},
    %a0: tensor<?x8xbf16> {parc.kind = "input", parc.name = "state0", parc.shape = #state},
    %b0: tensor<?x8xbf16> {parc.kind = "input", parc.name = "state1", parc.shape = #state})
    -> (tensor<?x?x8xbf16>, tensor<?x8xbf16> {parc.kind = "state"}, tensor<?x8xbf16> {parc.kind = "state"},
        tensor<?x?x8xbf16> {parc.kind = "saved"}) {
  %e = tensor.empty(%B) : tensor<?x8xbf16>
  %s = "parc.system"(%T, %B) ({
    %a = "parc.unknown"() {name = "A", shape = #longer} : () -> tensor<?x?x8xbf16>
    %b = "parc.unknown"() {name = "B", shape = #longer} : () -> tensor<?x?x8xbf16>
    "parc.boundary"(%a, %a0) {domain = #always, to = #first, of = #all} : (tensor<?x?x8xbf16>, tensor<?x8xbf16>) -> ()
    "parc.boundary"(%b, %b0) {domain = #always, to = #first, of = #all} : (tensor<?x?x8xbf16>, tensor<?x8xbf16>) -> ()
    "parc.equation"() ({
    ^bb0(%t: index):
      %at = "parc.read"(%a) {at = #here} : (tensor<?x?x8xbf16>) -> tensor<?x8xbf16>
      %bt = "parc.read"(%b) {at = #here} : (tensor<?x?x8xbf16>) -> tensor<?x8xbf16>
      %f = linalg.generic {indexing_maps = [#id, #id], iterator_types = ["parallel", "parallel"]}
          ins(%bt : tensor<?x8xbf16>) outs(%e : tensor<?x8xbf16>) {
      ^bb0(%x: bf16, %out: bf16):
        %y = math.tanh %x : bf16
        linalg.yield %y : bf16
      } -> tensor<?x8xbf16>
      %an = linalg.generic {indexing_maps = [#id, #id, #id], iterator_types = ["parallel", "parallel"]}
          ins(%at, %f : tensor<?x8xbf16>, tensor<?x8xbf16>) outs(%e : tensor<?x8xbf16>) {
      ^bb0(%x: bf16, %y: bf16, %out: bf16):
        %z = arith.addf %x, %y : bf16
        linalg.yield %z : bf16
      } -> tensor<?x8xbf16>
      %bn = linalg.generic {indexing_maps = [#id, #id, #id], iterator_types = ["parallel", "parallel"]}
          ins(%bt, %an : tensor<?x8xbf16>, tensor<?x8xbf16>) outs(%e : tensor<?x8xbf16>) {
      ^bb0(%x: bf16, %y: bf16, %out: bf16):
        %z = arith.subf %x, %y : bf16
        linalg.yield %z : bf16
      } -> tensor<?x8xbf16>
      // expected-error @below {{sums of bf16 lose too many digits of A}}
      "parc.write"(%an, %a) {at = #next} : (tensor<?x8xbf16>, tensor<?x?x8xbf16>) -> ()
      "parc.write"(%bn, %b) {at = #next} : (tensor<?x8xbf16>, tensor<?x?x8xbf16>) -> ()
    }) {name = "cell", domain = affine_set<(t)[T, B] : (t >= 0, T - 1 - t >= 0)>} : () -> ()
  }) {symbols = ["T", "B"]} : (index, index) -> !parc.solution
  %A = "parc.array"(%s) {name = "A"} : (!parc.solution) -> tensor<?x?x8xbf16>
  %B_ = "parc.array"(%s) {name = "B"} : (!parc.solution) -> tensor<?x?x8xbf16>
  %y = tensor.extract_slice %B_[1, 0, 0] [%T, %B, 8] [1, 1, 1] : tensor<?x?x8xbf16> to tensor<?x?x8xbf16>
  %last_a = tensor.extract_slice %A[%T, 0, 0] [1, %B, 8] [1, 1, 1] : tensor<?x?x8xbf16> to tensor<?x8xbf16>
  %last_b = tensor.extract_slice %B_[%T, 0, 0] [1, %B, 8] [1, 1, 1] : tensor<?x?x8xbf16> to tensor<?x8xbf16>
  return %y, %last_a, %last_b, %A : tensor<?x?x8xbf16>, tensor<?x8xbf16>, tensor<?x8xbf16>, tensor<?x?x8xbf16>
}
