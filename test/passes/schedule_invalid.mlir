// RUN: parc-opt %s --split-input-file --verify-diagnostics --parc-schedule

// A system that is no system of equations, or has no order, is refused at the operation that is to blame.

func.func @needs_itself(%T: index) {
  %s = "parc.system"(%T) ({
    %h = "parc.unknown"() {name = "H", shape = affine_map<()[T] -> (T, 8)>} : () -> tensor<?x8xf32>
    // expected-error @below {{the equation cell has no order, it needs itself through H: cell[t=0] needs cell[t=0] for T=1}}
    "parc.equation"() ({
    ^bb0(%t: index):
      %a = "parc.read"(%h) {at = affine_map<(t)[T] -> (t)>} : (tensor<?x8xf32>) -> tensor<8xf32>
      "parc.write"(%a, %h) {at = affine_map<(t)[T] -> (t)>} : (tensor<8xf32>, tensor<?x8xf32>) -> ()
    }) {name = "cell", domain = affine_set<(t)[T] : (t >= 0, T - 1 - t >= 0)>} : () -> ()
  }) {symbols = ["T"]} : (index) -> !parc.solution
  return
}

// -----

func.func @need_each_other(%T: index) {
  %s = "parc.system"(%T) ({
    %g = "parc.unknown"() {name = "G", shape = affine_map<()[T] -> (T, 8)>} : () -> tensor<?x8xf32>
    %h = "parc.unknown"() {name = "H", shape = affine_map<()[T] -> (T, 8)>} : () -> tensor<?x8xf32>
    // expected-error @below {{the equations first, second have no order, they need each other through H, G: first[t=0] needs second[t=0] needs first[t=0] for T=1}}
    "parc.equation"() ({
    ^bb0(%t: index):
      %a = "parc.read"(%h) {at = affine_map<(t)[T] -> (t)>} : (tensor<?x8xf32>) -> tensor<8xf32>
      "parc.write"(%a, %g) {at = affine_map<(t)[T] -> (t)>} : (tensor<8xf32>, tensor<?x8xf32>) -> ()
    }) {name = "first", domain = affine_set<(t)[T] : (t >= 0, T - 1 - t >= 0)>} : () -> ()
    "parc.equation"() ({
    ^bb0(%t: index):
      %a = "parc.read"(%g) {at = affine_map<(t)[T] -> (t)>} : (tensor<?x8xf32>) -> tensor<8xf32>
      "parc.write"(%a, %h) {at = affine_map<(t)[T] -> (t)>} : (tensor<8xf32>, tensor<?x8xf32>) -> ()
    }) {name = "second", domain = affine_set<(t)[T] : (t >= 0, T - 1 - t >= 0)>} : () -> ()
  }) {symbols = ["T"]} : (index) -> !parc.solution
  return
}

// -----

// One array filled forwards from its own future: a cycle only of more than one point.
func.func @past_and_future(%T: index, %e: tensor<8xf32>) {
  %s = "parc.system"(%T) ({
    %h = "parc.unknown"() {name = "H", shape = affine_map<()[T] -> (T + 2, 8)>} : () -> tensor<?x8xf32>
    "parc.boundary"(%h, %e) {domain = affine_set<()[T] : (0 == 0)>, to = affine_map<()[T] -> (0)>,
      of = affine_map<()[T] -> ()>} : (tensor<?x8xf32>, tensor<8xf32>) -> ()
    "parc.boundary"(%h, %e) {domain = affine_set<()[T] : (0 == 0)>, to = affine_map<()[T] -> (T + 1)>,
      of = affine_map<()[T] -> ()>} : (tensor<?x8xf32>, tensor<8xf32>) -> ()
    // expected-error @below {{the equation cell has no order, it needs itself through H: cell[t=1] needs cell[t=0] needs cell[t=1] for T=2}}
    "parc.equation"() ({
    ^bb0(%t: index):
      %a = "parc.read"(%h) {at = affine_map<(t)[T] -> (t)>} : (tensor<?x8xf32>) -> tensor<8xf32>
      %b = "parc.read"(%h) {at = affine_map<(t)[T] -> (t + 2)>} : (tensor<?x8xf32>) -> tensor<8xf32>
      %c = arith.addf %a, %b : tensor<8xf32>
      "parc.write"(%c, %h) {at = affine_map<(t)[T] -> (t + 1)>} : (tensor<8xf32>, tensor<?x8xf32>) -> ()
    }) {name = "cell", domain = affine_set<(t)[T] : (t >= 0, T - 1 - t >= 0)>} : () -> ()
  }) {symbols = ["T"]} : (index) -> !parc.solution
  return
}

// -----

func.func @reads_before_the_start(%T: index) {
  %s = "parc.system"(%T) ({
    %h = "parc.unknown"() {name = "H", shape = affine_map<()[T] -> (T, 8)>} : () -> tensor<?x8xf32>
    "parc.equation"() ({
    ^bb0(%t: index):
      // expected-error @below {{cell[t=0] reads H[-1], which is outside the array for T=1}}
      %a = "parc.read"(%h) {at = affine_map<(t)[T] -> (t - 1)>} : (tensor<?x8xf32>) -> tensor<8xf32>
      "parc.write"(%a, %h) {at = affine_map<(t)[T] -> (t)>} : (tensor<8xf32>, tensor<?x8xf32>) -> ()
    }) {name = "cell", domain = affine_set<(t)[T] : (t >= 0, T - 1 - t >= 0)>} : () -> ()
  }) {symbols = ["T"]} : (index) -> !parc.solution
  return
}

// -----

// The extents of an argument are known from its `parc.shape`.
func.func @reads_past_an_input(%T: index {parc.kind = "symbol", parc.name = "T"}, %x: tensor<?x8xf32>
    {parc.kind = "input", parc.name = "x", parc.shape = affine_map<()[T] -> (T, 8)>}) {
  %s = "parc.system"(%T) ({
    %h = "parc.unknown"() {name = "H", shape = affine_map<()[T] -> (T, 8)>} : () -> tensor<?x8xf32>
    "parc.equation"() ({
    ^bb0(%t: index):
      // expected-error @below {{copy[t=0] reads x[1], which is outside the array for T=1}}
      %a = "parc.read"(%x) {at = affine_map<(t)[T] -> (t + 1)>} : (tensor<?x8xf32>) -> tensor<8xf32>
      "parc.write"(%a, %h) {at = affine_map<(t)[T] -> (t)>} : (tensor<8xf32>, tensor<?x8xf32>) -> ()
    }) {name = "copy", domain = affine_set<(t)[T] : (t >= 0, T - 1 - t >= 0)>} : () -> ()
  }) {symbols = ["T"]} : (index) -> !parc.solution
  return
}

// -----

func.func @writes_outside(%T: index, %x: tensor<?x8xf32>) {
  %s = "parc.system"(%T) ({
    %h = "parc.unknown"() {name = "H", shape = affine_map<()[T] -> (T, 8)>} : () -> tensor<?x8xf32>
    "parc.equation"() ({
    ^bb0(%t: index):
      %a = "parc.read"(%x) {at = affine_map<(t)[T] -> (t)>} : (tensor<?x8xf32>) -> tensor<8xf32>
      // expected-error @below {{copy[t=0] writes H[1], which is outside the array for T=1}}
      "parc.write"(%a, %h) {at = affine_map<(t)[T] -> (t + 1)>} : (tensor<8xf32>, tensor<?x8xf32>) -> ()
    }) {name = "copy", domain = affine_set<(t)[T] : (t >= 0, T - 1 - t >= 0)>} : () -> ()
  }) {symbols = ["T"]} : (index) -> !parc.solution
  return
}

// -----

func.func @defined_twice(%T: index, %x: tensor<?x8xf32>, %h0: tensor<8xf32>) {
  %s = "parc.system"(%T) ({
    %h = "parc.unknown"() {name = "H", shape = affine_map<()[T] -> (T + 1, 8)>} : () -> tensor<?x8xf32>
    "parc.boundary"(%h, %h0) {domain = affine_set<()[T] : (0 == 0)>, to = affine_map<()[T] -> (0)>,
      of = affine_map<()[T] -> ()>} : (tensor<?x8xf32>, tensor<8xf32>) -> ()
    "parc.equation"() ({
    ^bb0(%t: index):
      %a = "parc.read"(%x) {at = affine_map<(t)[T] -> (t)>} : (tensor<?x8xf32>) -> tensor<8xf32>
      // expected-error @below {{H[0] is defined twice for T=1: by a boundary}}
      "parc.write"(%a, %h) {at = affine_map<(t)[T] -> (t)>} : (tensor<8xf32>, tensor<?x8xf32>) -> ()
    }) {name = "copy", domain = affine_set<(t)[T] : (t >= 0, T - 1 - t >= 0)>} : () -> ()
  }) {symbols = ["T"]} : (index) -> !parc.solution
  return
}

// -----

func.func @defined_by_two_points(%T: index, %x: tensor<?x8xf32>) {
  %s = "parc.system"(%T) ({
    %h = "parc.unknown"() {name = "H", shape = affine_map<()[T] -> (T, 8)>} : () -> tensor<?x8xf32>
    "parc.equation"() ({
    ^bb0(%t: index):
      %a = "parc.read"(%x) {at = affine_map<(t)[T] -> (t)>} : (tensor<?x8xf32>) -> tensor<8xf32>
      // expected-error @below {{H[0] is defined twice for T=2: by copy[t=0] and by copy[t=1]}}
      "parc.write"(%a, %h) {at = affine_map<(t)[T] -> (t floordiv 2)>} : (tensor<8xf32>, tensor<?x8xf32>) -> ()
    }) {name = "copy", domain = affine_set<(t)[T] : (t >= 0, T - 1 - t >= 0)>} : () -> ()
  }) {symbols = ["T"]} : (index) -> !parc.solution
  return
}

// -----

func.func @reads_what_nothing_defines(%T: index) {
  %s = "parc.system"(%T) ({
    %h = "parc.unknown"() {name = "H", shape = affine_map<()[T] -> (T + 1, 8)>} : () -> tensor<?x8xf32>
    "parc.equation"() ({
    ^bb0(%t: index):
      // expected-error @below {{cell[t=0] reads H[0], which is never defined for T=1}}
      %a = "parc.read"(%h) {at = affine_map<(t)[T] -> (t)>} : (tensor<?x8xf32>) -> tensor<8xf32>
      "parc.write"(%a, %h) {at = affine_map<(t)[T] -> (t + 1)>} : (tensor<8xf32>, tensor<?x8xf32>) -> ()
    }) {name = "cell", domain = affine_set<(t)[T] : (t >= 0, T - 1 - t >= 0)>} : () -> ()
  }) {symbols = ["T"]} : (index) -> !parc.solution
  return
}

// -----

func.func @result_with_a_hole(%T: index, %x: tensor<?x8xf32>) -> tensor<?x8xf32> {
  %s = "parc.system"(%T) ({
    // expected-error @below {{H[0] for T=0 is a result but is never defined}}
    %h = "parc.unknown"() {name = "H", shape = affine_map<()[T] -> (T + 1, 8)>} : () -> tensor<?x8xf32>
    "parc.equation"() ({
    ^bb0(%t: index):
      %a = "parc.read"(%x) {at = affine_map<(t)[T] -> (t)>} : (tensor<?x8xf32>) -> tensor<8xf32>
      "parc.write"(%a, %h) {at = affine_map<(t)[T] -> (t + 1)>} : (tensor<8xf32>, tensor<?x8xf32>) -> ()
    }) {name = "copy", domain = affine_set<(t)[T] : (t >= 0, T - 1 - t >= 0)>} : () -> ()
  }) {symbols = ["T"]} : (index) -> !parc.solution
  %H = "parc.array"(%s) {name = "H"} : (!parc.solution) -> tensor<?x8xf32>
  return %H : tensor<?x8xf32>
}

// -----

func.func @not_affine(%T: index, %B: index, %x: tensor<?x8xf32>) {
  %s = "parc.system"(%T, %B) ({
    %h = "parc.unknown"() {name = "H", shape = affine_map<()[T, B] -> (T, 8)>} : () -> tensor<?x8xf32>
    "parc.equation"() ({
    ^bb0(%t: index):
      // expected-error @below {{is not affine: the right-hand side is not a constant}}
      %a = "parc.read"(%x) {at = affine_map<(t)[T, B] -> (t * B)>} : (tensor<?x8xf32>) -> tensor<8xf32>
      "parc.write"(%a, %h) {at = affine_map<(t)[T, B] -> (t)>} : (tensor<8xf32>, tensor<?x8xf32>) -> ()
    }) {name = "copy", domain = affine_set<(t)[T, B] : (t >= 0, T - 1 - t >= 0)>} : () -> ()
  }) {symbols = ["T", "B"]} : (index, index) -> !parc.solution
  return
}
