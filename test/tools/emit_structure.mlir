// RUN: parc-opt %s --emit=structure --split-input-file --sizes=T=64 | filecheck %s
// RUN: parc-opt %s --emit=schedule --split-input-file | parc-opt --emit=structure --split-input-file --sizes=T=64 | filecheck %s

// A recurrence with tanh: lower bidiagonal, and not affine in its state.

// CHECK: System 0: {{.*}} numbers at T=64
// CHECK-NEXT: Structure: block lower bidiagonal in t (T rows)
// CHECK-NEXT: not affine
// CHECK-NEXT: rows of the tiles (a batch) do not mix
// CHECK-NEXT: T = 64 block rows
// CHECK-NEXT: T - 1 = 63 blocks off the diagonal
// CHECK: cell by cell: H by H, dense 8 x 8, entries depend on H
// CHECK: sequential span T = 64
// CHECK: scan does not apply: the recurrence of cell is not affine
#here = affine_map<(t)[T] -> (t)>
#next = affine_map<(t)[T] -> (t + 1)>
#once = affine_set<()[T] : (0 == 0)>
#steps = affine_set<(t)[T] : (t >= 0, T - 1 - t >= 0)>
#states = affine_map<()[T] -> (T + 1, 4, 8)>
func.func @main(%T: index, %x: tensor<?x4x8xf32>, %h0: tensor<4x8xf32>, %w: tensor<8x8xf32>, %u: tensor<8x8xf32>) -> tensor<?x4x8xf32> {
  %s = "parc.system"(%T) ({
    %h = "parc.unknown"() {name = "H", shape = #states} : () -> tensor<?x4x8xf32>
    "parc.boundary"(%h, %h0) {domain = #once, to = affine_map<()[T] -> (0)>, of = affine_map<()[T] -> ()>} : (tensor<?x4x8xf32>, tensor<4x8xf32>) -> ()
    "parc.equation"() ({
    ^bb0(%t: index):
      %xt = "parc.read"(%x) {at = #here} : (tensor<?x4x8xf32>) -> tensor<4x8xf32>
      %ht = "parc.read"(%h) {at = #here} : (tensor<?x4x8xf32>) -> tensor<4x8xf32>
      %zero = arith.constant dense<0.0> : tensor<4x8xf32>
      %p = linalg.matmul ins(%xt, %w : tensor<4x8xf32>, tensor<8x8xf32>) outs(%zero : tensor<4x8xf32>) -> tensor<4x8xf32>
      %q = linalg.matmul ins(%ht, %u : tensor<4x8xf32>, tensor<8x8xf32>) outs(%p : tensor<4x8xf32>) -> tensor<4x8xf32>
      %new = math.tanh %q : tensor<4x8xf32>
      "parc.write"(%new, %h) {at = #next} : (tensor<4x8xf32>, tensor<?x4x8xf32>) -> ()
    }) {name = "cell", domain = #steps} : () -> ()
  }) {symbols = ["T"]} : (index) -> !parc.solution
  %H = "parc.array"(%s) {name = "H"} : (!parc.solution) -> tensor<?x4x8xf32>
  return %H : tensor<?x4x8xf32>
}

// -----

// The adjoint of two such layers: upper bidiagonal in the layers and in time, and affine, so that it can be nested.

// CHECK: Structure: block upper bidiagonal in 2 layers, each layer block upper bidiagonal in t (T rows)
// CHECK-NEXT: affine in all unknowns together
// CHECK-NEXT: rows of the tiles (a batch) do not mix
// CHECK-NEXT: 2*T = 128 block rows
// CHECK-NEXT: 3*T - 2 = 190 blocks off the diagonal
// CHECK: cell0 by cell0: D0 by D0, dense 8 x 8
// CHECK-NEXT: cell0 by cell1: D0 by D1, dense 8 x 8
// CHECK-NEXT: cell1 by cell1: D1 by D1, dense 8 x 8
// CHECK: sequential span 2*T = 128
// CHECK-NEXT: wavefront span T + 1 = 65
// CHECK-NEXT: Jacobi span T + 1 = 65
// CHECK-NEXT: scan span 4*ceil(log2(T)) = 24
// CHECK-NEXT: cyclic reduction span 4*ceil(log2(T)) = 24
// CHECK-NEXT: recursive doubling span 2*ceil(log2(T)) = 12
// CHECK-NEXT: nested scan span 4*ceil(log2(T)) = 24
#here = affine_map<(t)[T] -> (t)>
#next = affine_map<(t)[T] -> (t + 1)>
#once = affine_set<()[T] : (0 == 0)>
#steps = affine_set<(t)[T] : (t >= 0, T - 1 - t >= 0)>
#states = affine_map<()[T] -> (T + 1, 4, 8)>
#id = affine_map<(i, j) -> (i, j)>
func.func @main(%T: index, %gradient: tensor<?x4x8xf32>, %s0: tensor<?x4x8xf32>, %s1: tensor<?x4x8xf32>, %u0: tensor<8x8xf32>, %w1: tensor<8x8xf32>, %u1: tensor<8x8xf32>) -> tensor<?x4x8xf32> {
  %zero = arith.constant dense<0.0> : tensor<4x8xf32>
  %s = "parc.system"(%T) ({
    %d0 = "parc.unknown"() {name = "D0", shape = #states} : () -> tensor<?x4x8xf32>
    %d1 = "parc.unknown"() {name = "D1", shape = #states} : () -> tensor<?x4x8xf32>
    "parc.boundary"(%d0, %zero) {domain = #once, to = affine_map<()[T] -> (T)>, of = affine_map<()[T] -> ()>} : (tensor<?x4x8xf32>, tensor<4x8xf32>) -> ()
    "parc.boundary"(%d1, %zero) {domain = #once, to = affine_map<()[T] -> (T)>, of = affine_map<()[T] -> ()>} : (tensor<?x4x8xf32>, tensor<4x8xf32>) -> ()
    "parc.equation"() ({
    ^bb0(%t: index):
      %saved = "parc.read"(%s0) {at = #here} : (tensor<?x4x8xf32>) -> tensor<4x8xf32>
      %after = "parc.read"(%d0) {at = #next} : (tensor<?x4x8xf32>) -> tensor<4x8xf32>
      %above = "parc.read"(%d1) {at = #here} : (tensor<?x4x8xf32>) -> tensor<4x8xf32>
      %p = linalg.matmul ins(%above, %w1 : tensor<4x8xf32>, tensor<8x8xf32>) outs(%zero : tensor<4x8xf32>) -> tensor<4x8xf32>
      %q = linalg.matmul ins(%after, %u0 : tensor<4x8xf32>, tensor<8x8xf32>) outs(%p : tensor<4x8xf32>) -> tensor<4x8xf32>
      %d = arith.mulf %saved, %q : tensor<4x8xf32>
      "parc.write"(%d, %d0) {at = #here} : (tensor<4x8xf32>, tensor<?x4x8xf32>) -> ()
    }) {name = "cell0", domain = #steps} : () -> ()
    "parc.equation"() ({
    ^bb0(%t: index):
      %saved = "parc.read"(%s1) {at = #here} : (tensor<?x4x8xf32>) -> tensor<4x8xf32>
      %g = "parc.read"(%gradient) {at = #here} : (tensor<?x4x8xf32>) -> tensor<4x8xf32>
      %after = "parc.read"(%d1) {at = #next} : (tensor<?x4x8xf32>) -> tensor<4x8xf32>
      %q = linalg.matmul ins(%after, %u1 : tensor<4x8xf32>, tensor<8x8xf32>) outs(%g : tensor<4x8xf32>) -> tensor<4x8xf32>
      %d = arith.mulf %saved, %q : tensor<4x8xf32>
      "parc.write"(%d, %d1) {at = #here} : (tensor<4x8xf32>, tensor<?x4x8xf32>) -> ()
    }) {name = "cell1", domain = #steps} : () -> ()
  }) {symbols = ["T"]} : (index) -> !parc.solution
  %D = "parc.array"(%s) {name = "D0"} : (!parc.solution) -> tensor<?x4x8xf32>
  return %D : tensor<?x4x8xf32>
}

// -----

// A recurrence with a gate that does not know the state: affine, with diagonal blocks.

// CHECK: Structure: block lower bidiagonal in t (T rows)
// CHECK-NEXT: affine in all unknowns together
// CHECK: cell by cell: H by H, diagonal 8
// CHECK: scan span 2*ceil(log2(T)) = 12, work 160*T - 32
#here = affine_map<(t)[T] -> (t)>
#next = affine_map<(t)[T] -> (t + 1)>
#once = affine_set<()[T] : (0 == 0)>
#steps = affine_set<(t)[T] : (t >= 0, T - 1 - t >= 0)>
#states = affine_map<()[T] -> (T + 1, 4, 8)>
func.func @main(%T: index, %x: tensor<?x4x8xf32>, %f: tensor<?x4x8xf32>, %h0: tensor<4x8xf32>) -> tensor<?x4x8xf32> {
  %s = "parc.system"(%T) ({
    %h = "parc.unknown"() {name = "H", shape = #states} : () -> tensor<?x4x8xf32>
    "parc.boundary"(%h, %h0) {domain = #once, to = affine_map<()[T] -> (0)>, of = affine_map<()[T] -> ()>} : (tensor<?x4x8xf32>, tensor<4x8xf32>) -> ()
    "parc.equation"() ({
    ^bb0(%t: index):
      %xt = "parc.read"(%x) {at = #here} : (tensor<?x4x8xf32>) -> tensor<4x8xf32>
      %ft = "parc.read"(%f) {at = #here} : (tensor<?x4x8xf32>) -> tensor<4x8xf32>
      %ht = "parc.read"(%h) {at = #here} : (tensor<?x4x8xf32>) -> tensor<4x8xf32>
      %gate = math.tanh %ft : tensor<4x8xf32>
      %kept = arith.mulf %gate, %ht : tensor<4x8xf32>
      %new = arith.addf %kept, %xt : tensor<4x8xf32>
      "parc.write"(%new, %h) {at = #next} : (tensor<4x8xf32>, tensor<?x4x8xf32>) -> ()
    }) {name = "cell", domain = #steps} : () -> ()
  }) {symbols = ["T"]} : (index) -> !parc.solution
  %H = "parc.array"(%s) {name = "H"} : (!parc.solution) -> tensor<?x4x8xf32>
  return %H : tensor<?x4x8xf32>
}
