// RUN: parc-opt %s --split-input-file --verify-diagnostics --parc-iterate="solver=jacobi-gs block=9 tolerance=1e-9"

// What cannot be swept over is refused at the equation or system that is to blame.

#here = affine_map<(t)[T] -> (t)>
func.func @two_equations_in_a_circle(%T: index) {
  %s = "parc.system"(%T) ({
    %h = "parc.unknown"() {name = "H", shape = affine_map<()[T] -> (T, 8)>} : () -> tensor<?x8xf32>
    %g = "parc.unknown"() {name = "G", shape = affine_map<()[T] -> (T, 8)>} : () -> tensor<?x8xf32>
    // expected-error @below {{the equations h, g have no order, they need each other through}}
    "parc.equation"() ({
    ^bb0(%t: index):
      %gt = "parc.read"(%g) {at = #here} : (tensor<?x8xf32>) -> tensor<8xf32>
      "parc.write"(%gt, %h) {at = #here} : (tensor<8xf32>, tensor<?x8xf32>) -> ()
    }) {name = "h", domain = affine_set<(t)[T] : (t >= 0, T - 1 - t >= 0)>} : () -> ()
    "parc.equation"() ({
    ^bb0(%t: index):
      %ht = "parc.read"(%h) {at = #here} : (tensor<?x8xf32>) -> tensor<8xf32>
      "parc.write"(%ht, %g) {at = #here} : (tensor<8xf32>, tensor<?x8xf32>) -> ()
    }) {name = "g", domain = affine_set<(t)[T] : (t >= 0, T - 1 - t >= 0)>} : () -> ()
  }) {symbols = ["T"]} : (index) -> !parc.solution
  return
}

// -----

// Eight steps have no block of nine.

#here = affine_map<(t)[] -> (t)>
func.func @main(%h0: tensor<8xf32>) -> tensor<9x8xf32> {
  %s = "parc.system"() ({
    %h = "parc.unknown"() {name = "H", shape = affine_map<()[] -> (9, 8)>} : () -> tensor<9x8xf32>
    "parc.boundary"(%h, %h0) {domain = affine_set<()[] : (0 == 0)>, to = affine_map<()[] -> (0)>, of = affine_map<()[] -> ()>} : (tensor<9x8xf32>, tensor<8xf32>) -> ()
    // expected-error @below {{a block of 9 steps: jacobi-gs takes blocks of 1 to 8 here, or 0 to choose}}
    "parc.equation"() ({
    ^bb0(%t: index):
      %ht = "parc.read"(%h) {at = #here} : (tensor<9x8xf32>) -> tensor<8xf32>
      "parc.write"(%ht, %h) {at = affine_map<(t)[] -> (t + 1)>} : (tensor<8xf32>, tensor<9x8xf32>) -> ()
    }) {name = "cell", domain = affine_set<(t)[] : (t >= 0, 7 - t >= 0)>} : () -> ()
  }) {symbols = []} : () -> !parc.solution
  %H = "parc.array"(%s) {name = "H"} : (!parc.solution) -> tensor<9x8xf32>
  return %H : tensor<9x8xf32>
}

// -----

#here = affine_map<(t)[T] -> (t)>
func.func @main(%T: index, %h0: tensor<8xf32>) -> tensor<?x8xf32> {
  // expected-error @below {{a tolerance of 1e-09 is below the precision of H, which is f32: the smallest sensible one is 1.19e-07, and 0 sweeps until nothing changes}}
  %s = "parc.system"(%T) ({
    %h = "parc.unknown"() {name = "H", shape = affine_map<()[T] -> (T + 1, 8)>} : () -> tensor<?x8xf32>
    "parc.boundary"(%h, %h0) {domain = affine_set<()[T] : (0 == 0)>, to = affine_map<()[T] -> (0)>, of = affine_map<()[T] -> ()>} : (tensor<?x8xf32>, tensor<8xf32>) -> ()
    "parc.equation"() ({
    ^bb0(%t: index):
      %ht = "parc.read"(%h) {at = #here} : (tensor<?x8xf32>) -> tensor<8xf32>
      "parc.write"(%ht, %h) {at = affine_map<(t)[T] -> (t + 1)>} : (tensor<8xf32>, tensor<?x8xf32>) -> ()
    }) {name = "cell", domain = affine_set<(t)[T] : (t >= 0, T - 1 - t >= 0)>} : () -> ()
  }) {symbols = ["T"]} : (index) -> !parc.solution
  %H = "parc.array"(%s) {name = "H"} : (!parc.solution) -> tensor<?x8xf32>
  return %H : tensor<?x8xf32>
}

// -----

// Each row of the triangle follows all of the one before: its order has no affine depth.

func.func @main(%T: index, %h0: tensor<8xf32>) -> tensor<?x?x8xf32> {
  %s = "parc.system"(%T) ({
    %h = "parc.unknown"() {name = "H", shape = affine_map<()[T] -> (T + 1, T + 1, 8)>} : () -> tensor<?x?x8xf32>
    "parc.boundary"(%h, %h0) {domain = affine_set<(i)[T] : (i >= 0, T - i >= 0)>, to = affine_map<(i)[T] -> (0, i)>, of = affine_map<(i)[T] -> ()>} : (tensor<?x?x8xf32>, tensor<8xf32>) -> ()
    // expected-error @below {{first, rest have an order but no affine depth, so that sweeps have no bound}}
    "parc.equation"() ({
    ^bb0(%t: index):
      %last = "parc.read"(%h) {at = affine_map<(t)[T] -> (t, T)>} : (tensor<?x?x8xf32>) -> tensor<8xf32>
      "parc.write"(%last, %h) {at = affine_map<(t)[T] -> (t + 1, 0)>} : (tensor<8xf32>, tensor<?x?x8xf32>) -> ()
    }) {name = "first", domain = affine_set<(t)[T] : (t >= 0, T - 1 - t >= 0)>} : () -> ()
    "parc.equation"() ({
    ^bb0(%t: index, %i: index):
      %left = "parc.read"(%h) {at = affine_map<(t, i)[T] -> (t + 1, i)>} : (tensor<?x?x8xf32>) -> tensor<8xf32>
      "parc.write"(%left, %h) {at = affine_map<(t, i)[T] -> (t + 1, i + 1)>} : (tensor<8xf32>, tensor<?x?x8xf32>) -> ()
    }) {name = "rest", domain = affine_set<(t, i)[T] : (t >= 0, T - 1 - t >= 0, i >= 0, T - 1 - i >= 0)>} : () -> ()
  }) {symbols = ["T"]} : (index) -> !parc.solution
  %H = "parc.array"(%s) {name = "H"} : (!parc.solution) -> tensor<?x?x8xf32>
  return %H : tensor<?x?x8xf32>
}
