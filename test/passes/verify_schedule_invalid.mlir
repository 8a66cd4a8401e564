// RUN: parc-opt %s --split-input-file --verify-diagnostics --parc-verify-schedule
// RUN: parc-opt %s --split-input-file --verify-diagnostics --parc-lower-to-loops

// A schedule is refused when a point does not come after those that it needs; the message names a pair of points.

// The steps of a recurrence from the last to the first.
func.func @main(%T: index, %x: tensor<?x8xf32>, %h0: tensor<8xf32>) {
  %s = "parc.system"(%T) ({
    %h = "parc.unknown"() {name = "H", shape = affine_map<()[T] -> (T + 1, 8)>} : () -> tensor<?x8xf32>
    "parc.boundary"(%h, %h0) {domain = affine_set<()[T] : (0 == 0)>, to = affine_map<()[T] -> (0)>,
      of = affine_map<()[T] -> ()>} : (tensor<?x8xf32>, tensor<8xf32>) -> ()
    // expected-error @below {{cell[t=1] must run after cell[t=0] (reads H[1]) but is scheduled at (0), and cell[t=0] at (1) for T=2; the dependence is [T] -> { cell[t] -> cell[t' = 1 + t] : 0 <= t <= -2 + T }}}
    "parc.equation"() ({
    ^bb0(%t: index):
      %a = "parc.read"(%x) {at = affine_map<(t)[T] -> (t)>} : (tensor<?x8xf32>) -> tensor<8xf32>
      %b = "parc.read"(%h) {at = affine_map<(t)[T] -> (t)>} : (tensor<?x8xf32>) -> tensor<8xf32>
      %c = arith.addf %a, %b : tensor<8xf32>
      "parc.write"(%c, %h) {at = affine_map<(t)[T] -> (t + 1)>} : (tensor<8xf32>, tensor<?x8xf32>) -> ()
    }) {name = "cell", domain = affine_set<(t)[T] : (t >= 0, T - 1 - t >= 0)>,
        schedule = affine_map<(t)[T] -> (T - 1 - t)>} : () -> ()
  }) {symbols = ["T"], distribute = "units"} : (index) -> !parc.solution
  return
}

// -----

// The second layer in the wave of the first.
func.func @main(%T: index, %x: tensor<?x8xf32>) {
  %s = "parc.system"(%T) ({
    %g = "parc.unknown"() {name = "G", shape = affine_map<()[T] -> (T, 8)>} : () -> tensor<?x8xf32>
    %h = "parc.unknown"() {name = "H", shape = affine_map<()[T] -> (T, 8)>} : () -> tensor<?x8xf32>
    "parc.equation"() ({
    ^bb0(%t: index):
      %a = "parc.read"(%x) {at = affine_map<(t)[T] -> (t)>} : (tensor<?x8xf32>) -> tensor<8xf32>
      "parc.write"(%a, %g) {at = affine_map<(t)[T] -> (t)>} : (tensor<8xf32>, tensor<?x8xf32>) -> ()
    }) {name = "cell0", domain = affine_set<(t)[T] : (t >= 0, T - 1 - t >= 0)>,
        schedule = affine_map<(t)[T] -> (t)>} : () -> ()
    // expected-error @below {{cell1[t=0] must run after cell0[t=0] (reads G[0]) but is scheduled at (0), and cell0[t=0] at (0) for T=1}}
    "parc.equation"() ({
    ^bb0(%t: index):
      %a = "parc.read"(%g) {at = affine_map<(t)[T] -> (t)>} : (tensor<?x8xf32>) -> tensor<8xf32>
      "parc.write"(%a, %h) {at = affine_map<(t)[T] -> (t)>} : (tensor<8xf32>, tensor<?x8xf32>) -> ()
    }) {name = "cell1", domain = affine_set<(t)[T] : (t >= 0, T - 1 - t >= 0)>,
        schedule = affine_map<(t)[T] -> (t)>} : () -> ()
  }) {symbols = ["T"], distribute = "units"} : (index) -> !parc.solution
  return
}

// -----

// Right for tiles of one step and for the first steps of a tile only: found at the smallest size that shows it.
func.func @main(%T: index, %x: tensor<?x8xf32>) {
  %s = "parc.system"(%T) ({
    %g = "parc.unknown"() {name = "G", shape = affine_map<()[T] -> (T, 8)>} : () -> tensor<?x8xf32>
    %h = "parc.unknown"() {name = "H", shape = affine_map<()[T] -> (T, 8)>} : () -> tensor<?x8xf32>
    "parc.equation"() ({
    ^bb0(%t: index):
      %a = "parc.read"(%x) {at = affine_map<(t)[T] -> (t)>} : (tensor<?x8xf32>) -> tensor<8xf32>
      "parc.write"(%a, %g) {at = affine_map<(t)[T] -> (t)>} : (tensor<8xf32>, tensor<?x8xf32>) -> ()
    }) {name = "cell0", domain = affine_set<(t)[T] : (t >= 0, T - 1 - t >= 0)>,
        schedule = affine_map<(t)[T] -> (t floordiv 4, t mod 4)>} : () -> ()
    // expected-error @below {{cell1[t=2] must run after cell0[t=2] (reads G[2]) but is scheduled at (0, 2), and cell0[t=2] at (0, 2) for T=3}}
    "parc.equation"() ({
    ^bb0(%t: index):
      %a = "parc.read"(%g) {at = affine_map<(t)[T] -> (t)>} : (tensor<?x8xf32>) -> tensor<8xf32>
      "parc.write"(%a, %h) {at = affine_map<(t)[T] -> (t)>} : (tensor<8xf32>, tensor<?x8xf32>) -> ()
    }) {name = "cell1", domain = affine_set<(t)[T] : (t >= 0, T - 1 - t >= 0)>,
        schedule = affine_map<(t)[T] -> (t floordiv 4, 2)>} : () -> ()
  }) {symbols = ["T"], distribute = "units"} : (index) -> !parc.solution
  return
}

// -----

// An equation without a time.
func.func @main(%T: index, %x: tensor<?x8xf32>) {
  %s = "parc.system"(%T) ({
    %h = "parc.unknown"() {name = "H", shape = affine_map<()[T] -> (T, 8)>} : () -> tensor<?x8xf32>
    // expected-error @below {{equation copy has no schedule}}
    "parc.equation"() ({
    ^bb0(%t: index):
      %a = "parc.read"(%x) {at = affine_map<(t)[T] -> (t)>} : (tensor<?x8xf32>) -> tensor<8xf32>
      "parc.write"(%a, %h) {at = affine_map<(t)[T] -> (t)>} : (tensor<8xf32>, tensor<?x8xf32>) -> ()
    }) {name = "copy", domain = affine_set<(t)[T] : (t >= 0, T - 1 - t >= 0)>} : () -> ()
  }) {symbols = ["T"], distribute = "units"} : (index) -> !parc.solution
  return
}

// -----

// Times that cannot be compared.
func.func @main(%T: index, %x: tensor<?x8xf32>) {
  %s = "parc.system"(%T) ({
    %g = "parc.unknown"() {name = "G", shape = affine_map<()[T] -> (T, 8)>} : () -> tensor<?x8xf32>
    %h = "parc.unknown"() {name = "H", shape = affine_map<()[T] -> (T, 8)>} : () -> tensor<?x8xf32>
    // expected-error @below {{the equations have time vectors of different lengths: 1, 2}}
    "parc.equation"() ({
    ^bb0(%t: index):
      %a = "parc.read"(%x) {at = affine_map<(t)[T] -> (t)>} : (tensor<?x8xf32>) -> tensor<8xf32>
      "parc.write"(%a, %g) {at = affine_map<(t)[T] -> (t)>} : (tensor<8xf32>, tensor<?x8xf32>) -> ()
    }) {name = "first", domain = affine_set<(t)[T] : (t >= 0, T - 1 - t >= 0)>,
        schedule = affine_map<(t)[T] -> (t)>} : () -> ()
    "parc.equation"() ({
    ^bb0(%t: index):
      %a = "parc.read"(%x) {at = affine_map<(t)[T] -> (t)>} : (tensor<?x8xf32>) -> tensor<8xf32>
      "parc.write"(%a, %h) {at = affine_map<(t)[T] -> (t)>} : (tensor<8xf32>, tensor<?x8xf32>) -> ()
    }) {name = "second", domain = affine_set<(t)[T] : (t >= 0, T - 1 - t >= 0)>,
        schedule = affine_map<(t)[T] -> (t, 0)>} : () -> ()
  }) {symbols = ["T"], distribute = "units"} : (index) -> !parc.solution
  return
}

// -----

// A way to share the work that does not exist.
func.func @main(%T: index, %x: tensor<?x8xf32>) {
  // expected-error @below {{a scheduled system has distribute = "units", "points" or "rows", not "columns"}}
  %s = "parc.system"(%T) ({
    %h = "parc.unknown"() {name = "H", shape = affine_map<()[T] -> (T, 8)>} : () -> tensor<?x8xf32>
    "parc.equation"() ({
    ^bb0(%t: index):
      %a = "parc.read"(%x) {at = affine_map<(t)[T] -> (t)>} : (tensor<?x8xf32>) -> tensor<8xf32>
      "parc.write"(%a, %h) {at = affine_map<(t)[T] -> (t)>} : (tensor<8xf32>, tensor<?x8xf32>) -> ()
    }) {name = "copy", domain = affine_set<(t)[T] : (t >= 0, T - 1 - t >= 0)>,
        schedule = affine_map<(t)[T] -> (t)>} : () -> ()
  }) {symbols = ["T"], distribute = "columns"} : (index) -> !parc.solution
  return
}

// -----

// Points are shared among the threads, but by nothing that says how.
func.func @main(%T: index, %x: tensor<?x8xf32>) {
  %s = "parc.system"(%T) ({
    %h = "parc.unknown"() {name = "H", shape = affine_map<()[T] -> (T, 8)>} : () -> tensor<?x8xf32>
    // expected-error @below {{equation copy needs an owner of one result: its system distributes points}}
    "parc.equation"() ({
    ^bb0(%t: index):
      %a = "parc.read"(%x) {at = affine_map<(t)[T] -> (t)>} : (tensor<?x8xf32>) -> tensor<8xf32>
      "parc.write"(%a, %h) {at = affine_map<(t)[T] -> (t)>} : (tensor<8xf32>, tensor<?x8xf32>) -> ()
    }) {name = "copy", domain = affine_set<(t)[T] : (t >= 0, T - 1 - t >= 0)>,
        schedule = affine_map<(t)[T] -> (t)>} : () -> ()
  }) {symbols = ["T"], distribute = "points"} : (index) -> !parc.solution
  return
}

// -----

// In order, but by two workers with no barrier in between.
func.func @main(%T: index, %x: tensor<?x8xf32>) {
  %s = "parc.system"(%T) ({
    %g = "parc.unknown"() {name = "G", shape = affine_map<()[T] -> (T, 8)>} : () -> tensor<?x8xf32>
    %h = "parc.unknown"() {name = "H", shape = affine_map<()[T] -> (T, 8)>} : () -> tensor<?x8xf32>
    "parc.equation"() ({
    ^bb0(%t: index):
      %a = "parc.read"(%x) {at = affine_map<(t)[T] -> (t)>} : (tensor<?x8xf32>) -> tensor<8xf32>
      "parc.write"(%a, %g) {at = affine_map<(t)[T] -> (t)>} : (tensor<8xf32>, tensor<?x8xf32>) -> ()
    }) {name = "first", domain = affine_set<(t)[T] : (t >= 0, T - 1 - t >= 0)>,
        schedule = affine_map<(t)[T] -> (t, 0)>, owner = affine_map<(t)[T] -> (0)>} : () -> ()
    // expected-error @below {{second[t=0] (worker (1)) needs first[t=0] (worker (0); reads G[0]) for T=1, but there is no barrier between them: both have (0) as the first coordinate of their time}}
    "parc.equation"() ({
    ^bb0(%t: index):
      %a = "parc.read"(%g) {at = affine_map<(t)[T] -> (t)>} : (tensor<?x8xf32>) -> tensor<8xf32>
      "parc.write"(%a, %h) {at = affine_map<(t)[T] -> (t)>} : (tensor<8xf32>, tensor<?x8xf32>) -> ()
    }) {name = "second", domain = affine_set<(t)[T] : (t >= 0, T - 1 - t >= 0)>,
        schedule = affine_map<(t)[T] -> (t, 1)>, owner = affine_map<(t)[T] -> (1)>} : () -> ()
  }) {symbols = ["T"], distribute = "points"} : (index) -> !parc.solution
  return
}

// -----

// All rows need the one row of G, of which one thread alone has it.
func.func @main(%T: index, %x: tensor<?x8xf32>) {
  %s = "parc.system"(%T) ({
    %g = "parc.unknown"() {name = "G", shape = affine_map<()[T] -> (T, 8)>} : () -> tensor<?x8xf32>
    %h = "parc.unknown"() {name = "H", shape = affine_map<()[T] -> (T, 4, 8)>} : () -> tensor<?x4x8xf32>
    "parc.equation"() ({
    ^bb0(%t: index):
      %a = "parc.read"(%x) {at = affine_map<(t)[T] -> (t)>} : (tensor<?x8xf32>) -> tensor<8xf32>
      %b = arith.addf %a, %a : tensor<8xf32>
      "parc.write"(%b, %g) {at = affine_map<(t)[T] -> (t)>} : (tensor<8xf32>, tensor<?x8xf32>) -> ()
    }) {name = "first", domain = affine_set<(t)[T] : (t >= 0, T - 1 - t >= 0)>,
        schedule = affine_map<(t)[T] -> (t, 0)>} : () -> ()
    // expected-error @below {{the rows of this system cannot be shared without barriers: all rows of second read the same of G}}
    "parc.equation"() ({
    ^bb0(%t: index):
      %a = "parc.read"(%g) {at = affine_map<(t)[T] -> (t)>} : (tensor<?x8xf32>) -> tensor<8xf32>
      %e = tensor.empty() : tensor<4x8xf32>
      %b = linalg.broadcast ins(%a : tensor<8xf32>) outs(%e : tensor<4x8xf32>) dimensions = [0]
      "parc.write"(%b, %h) {at = affine_map<(t)[T] -> (t)>} : (tensor<4x8xf32>, tensor<?x4x8xf32>) -> ()
    }) {name = "second", domain = affine_set<(t)[T] : (t >= 0, T - 1 - t >= 0)>,
        schedule = affine_map<(t)[T] -> (t, 1)>} : () -> ()
  }) {symbols = ["T"], distribute = "rows"} : (index) -> !parc.solution
  return
}

// -----

// A read of what is nowhere, in a system whose times are in order.
func.func @main(%T: index, %x: tensor<?x8xf32>) {
  %s = "parc.system"(%T) ({
    %h = "parc.unknown"() {name = "H", shape = affine_map<()[T] -> (T, 8)>} : () -> tensor<?x8xf32>
    "parc.equation"() ({
    ^bb0(%t: index):
      // expected-error @below {{cell[t=0] reads H[-1], which is outside the array for T=1}}
      %a = "parc.read"(%h) {at = affine_map<(t)[T] -> (t - 1)>} : (tensor<?x8xf32>) -> tensor<8xf32>
      "parc.write"(%a, %h) {at = affine_map<(t)[T] -> (t)>} : (tensor<8xf32>, tensor<?x8xf32>) -> ()
    }) {name = "cell", domain = affine_set<(t)[T] : (t >= 0, T - 1 - t >= 0)>,
        schedule = affine_map<(t)[T] -> (t)>} : () -> ()
  }) {symbols = ["T"], distribute = "units"} : (index) -> !parc.solution
  return
}
