// RUN: parc-opt %s --parc-split-products="inputs=false" --canonicalize --cse --split-input-file | filecheck %s

// In a stack, each cell multiplies its input and its state itself: one wait a wave is left.

// CHECK-COUNT-2: linalg.matmul
// CHECK: name = "below"
// CHECK-COUNT-2: linalg.matmul
// CHECK-NOT: linalg.matmul
// CHECK: name = "above"
#states = affine_map<()[T] -> (T + 1, 4, 8)>
#here = affine_map<(t)[T] -> (t)>
#next = affine_map<(t)[T] -> (t + 1)>
#steps = affine_set<(t)[T] : (t >= 0, T - 1 - t >= 0)>
#start = affine_set<()[T] : (0 == 0)>
!state = tensor<?x4x8xf32>
!tile = tensor<4x8xf32>
!weight = tensor<8x8xf32>
func.func @main(%T: index, %x: !state, %h0: !tile, %w: !weight, %u: !weight) -> !state {
  %s = "parc.system"(%T) ({
    %g = "parc.unknown"() {name = "G", shape = #states} : () -> !state
    %h = "parc.unknown"() {name = "H", shape = #states} : () -> !state
    "parc.boundary"(%g, %h0) {domain = #start, to = affine_map<()[T] -> (0)>, of = affine_map<()[T] -> ()>} : (!state, !tile) -> ()
    "parc.boundary"(%h, %h0) {domain = #start, to = affine_map<()[T] -> (0)>, of = affine_map<()[T] -> ()>} : (!state, !tile) -> ()
    "parc.equation"() ({
    ^bb0(%t: index):
      %xt = "parc.read"(%x) {at = #here} : (!state) -> !tile
      %ht = "parc.read"(%g) {at = #here} : (!state) -> !tile
      %zero = arith.constant 0.0 : f32
      %e = tensor.empty() : !tile
      %f = linalg.fill ins(%zero : f32) outs(%e : !tile) -> !tile
      %p = linalg.matmul ins(%xt, %w : !tile, !weight) outs(%f : !tile) -> !tile
      %q = linalg.matmul ins(%ht, %u : !tile, !weight) outs(%f : !tile) -> !tile
      %new = linalg.add ins(%p, %q : !tile, !tile) outs(%e : !tile) -> !tile
      "parc.write"(%new, %g) {at = #next} : (!tile, !state) -> ()
    }) {name = "below", domain = #steps} : () -> ()
    "parc.equation"() ({
    ^bb0(%t: index):
      %xt = "parc.read"(%g) {at = #next} : (!state) -> !tile
      %ht = "parc.read"(%h) {at = #here} : (!state) -> !tile
      %zero = arith.constant 0.0 : f32
      %e = tensor.empty() : !tile
      %f = linalg.fill ins(%zero : f32) outs(%e : !tile) -> !tile
      %p = linalg.matmul ins(%xt, %w : !tile, !weight) outs(%f : !tile) -> !tile
      %q = linalg.matmul ins(%ht, %u : !tile, !weight) outs(%f : !tile) -> !tile
      %new = linalg.add ins(%p, %q : !tile, !tile) outs(%e : !tile) -> !tile
      "parc.write"(%new, %h) {at = #next} : (!tile, !state) -> ()
    }) {name = "above", domain = #steps} : () -> ()
  }) {symbols = ["T"]} : (index) -> !parc.solution
  %H = "parc.array"(%s) {name = "H"} : (!parc.solution) -> !state
  return %H : !state
}

// -----

// An input that is larger than those of the layers above is still multiplied outside of its cell.

// CHECK: linalg.matmul {{.*}} tensor<64x8xf32>
// CHECK: name = "below_in0"
// CHECK: linalg.matmul
// CHECK: name = "below"
// CHECK-COUNT-2: linalg.matmul
// CHECK: name = "above"
#states = affine_map<()[T] -> (T + 1, 4, 8)>
#here = affine_map<(t)[T] -> (t)>
#next = affine_map<(t)[T] -> (t + 1)>
#steps = affine_set<(t)[T] : (t >= 0, T - 1 - t >= 0)>
#start = affine_set<()[T] : (0 == 0)>
!state = tensor<?x4x8xf32>
!tile = tensor<4x8xf32>
!weight = tensor<8x8xf32>
func.func @main(%T: index, %x: tensor<?x4x64xf32>, %h0: !tile, %w: !weight, %u: !weight, %large: tensor<64x8xf32>) -> !state {
  %s = "parc.system"(%T) ({
    %g = "parc.unknown"() {name = "G", shape = #states} : () -> !state
    %h = "parc.unknown"() {name = "H", shape = #states} : () -> !state
    "parc.boundary"(%g, %h0) {domain = #start, to = affine_map<()[T] -> (0)>, of = affine_map<()[T] -> ()>} : (!state, !tile) -> ()
    "parc.boundary"(%h, %h0) {domain = #start, to = affine_map<()[T] -> (0)>, of = affine_map<()[T] -> ()>} : (!state, !tile) -> ()
    "parc.equation"() ({
    ^bb0(%t: index):
      %xt = "parc.read"(%x) {at = #here} : (tensor<?x4x64xf32>) -> tensor<4x64xf32>
      %ht = "parc.read"(%g) {at = #here} : (!state) -> !tile
      %zero = arith.constant 0.0 : f32
      %e = tensor.empty() : !tile
      %f = linalg.fill ins(%zero : f32) outs(%e : !tile) -> !tile
      %p = linalg.matmul ins(%xt, %large : tensor<4x64xf32>, tensor<64x8xf32>) outs(%f : !tile) -> !tile
      %q = linalg.matmul ins(%ht, %u : !tile, !weight) outs(%f : !tile) -> !tile
      %new = linalg.add ins(%p, %q : !tile, !tile) outs(%e : !tile) -> !tile
      "parc.write"(%new, %g) {at = #next} : (!tile, !state) -> ()
    }) {name = "below", domain = #steps} : () -> ()
    "parc.equation"() ({
    ^bb0(%t: index):
      %xt = "parc.read"(%g) {at = #next} : (!state) -> !tile
      %ht = "parc.read"(%h) {at = #here} : (!state) -> !tile
      %zero = arith.constant 0.0 : f32
      %e = tensor.empty() : !tile
      %f = linalg.fill ins(%zero : f32) outs(%e : !tile) -> !tile
      %p = linalg.matmul ins(%xt, %w : !tile, !weight) outs(%f : !tile) -> !tile
      %q = linalg.matmul ins(%ht, %u : !tile, !weight) outs(%f : !tile) -> !tile
      %new = linalg.add ins(%p, %q : !tile, !tile) outs(%e : !tile) -> !tile
      "parc.write"(%new, %h) {at = #next} : (!tile, !state) -> ()
    }) {name = "above", domain = #steps} : () -> ()
  }) {symbols = ["T"]} : (index) -> !parc.solution
  %H = "parc.array"(%s) {name = "H"} : (!parc.solution) -> !state
  return %H : !state
}

// -----

// A recurrence alone has a large product of all its inputs, and a cell with nothing but its own. A stage has the product
// of an input that it needs, not an earlier one.

// CHECK: linalg.matmul
// CHECK: name = "alone_in0"
// CHECK: linalg.matmul
// CHECK: name = "alone"
// CHECK: linalg.matmul
// CHECK-NOT: linalg.matmul
// CHECK: name = "above_stage0"
// CHECK-COUNT-2: linalg.matmul
// CHECK: name = "above"
#states = affine_map<()[T] -> (T + 1, 4, 8)>
#here = affine_map<(t)[T] -> (t)>
#next = affine_map<(t)[T] -> (t + 1)>
#steps = affine_set<(t)[T] : (t >= 0, T - 1 - t >= 0)>
#start = affine_set<()[T] : (0 == 0)>
!state = tensor<?x4x8xf32>
!tile = tensor<4x8xf32>
!weight = tensor<8x8xf32>
func.func @main(%T: index, %x: !state, %h0: !tile, %w: !weight, %u: !weight) -> (!state, !state) {
  %s = "parc.system"(%T) ({
    %g = "parc.unknown"() {name = "G", shape = #states} : () -> !state
    "parc.boundary"(%g, %h0) {domain = #start, to = affine_map<()[T] -> (0)>, of = affine_map<()[T] -> ()>} : (!state, !tile) -> ()
    "parc.equation"() ({
    ^bb0(%t: index):
      %xt = "parc.read"(%x) {at = #here} : (!state) -> !tile
      %ht = "parc.read"(%g) {at = #here} : (!state) -> !tile
      %zero = arith.constant 0.0 : f32
      %e = tensor.empty() : !tile
      %f = linalg.fill ins(%zero : f32) outs(%e : !tile) -> !tile
      %p = linalg.matmul ins(%xt, %w : !tile, !weight) outs(%f : !tile) -> !tile
      %q = linalg.matmul ins(%ht, %u : !tile, !weight) outs(%f : !tile) -> !tile
      %new = linalg.add ins(%p, %q : !tile, !tile) outs(%e : !tile) -> !tile
      "parc.write"(%new, %g) {at = #next} : (!tile, !state) -> ()
    }) {name = "alone", domain = #steps} : () -> ()
  }) {symbols = ["T"]} : (index) -> !parc.solution
  %r = "parc.system"(%T) ({
    %g = "parc.unknown"() {name = "G", shape = #states} : () -> !state
    %h = "parc.unknown"() {name = "H", shape = #states} : () -> !state
    "parc.boundary"(%g, %h0) {domain = #start, to = affine_map<()[T] -> (0)>, of = affine_map<()[T] -> ()>} : (!state, !tile) -> ()
    "parc.boundary"(%h, %h0) {domain = #start, to = affine_map<()[T] -> (0)>, of = affine_map<()[T] -> ()>} : (!state, !tile) -> ()
    "parc.equation"() ({
    ^bb0(%t: index):
      %xt = "parc.read"(%x) {at = #here} : (!state) -> !tile
      %ht = "parc.read"(%g) {at = #here} : (!state) -> !tile
      %e = tensor.empty() : !tile
      %new = linalg.add ins(%xt, %ht : !tile, !tile) outs(%e : !tile) -> !tile
      "parc.write"(%new, %g) {at = #next} : (!tile, !state) -> ()
    }) {name = "below", domain = #steps} : () -> ()
    "parc.equation"() ({
    ^bb0(%t: index):
      %xt = "parc.read"(%g) {at = #next} : (!state) -> !tile
      %ht = "parc.read"(%h) {at = #here} : (!state) -> !tile
      %zero = arith.constant 0.0 : f32
      %e = tensor.empty() : !tile
      %f = linalg.fill ins(%zero : f32) outs(%e : !tile) -> !tile
      %p = linalg.matmul ins(%xt, %w : !tile, !weight) outs(%f : !tile) -> !tile
      %q = linalg.matmul ins(%ht, %u : !tile, !weight) outs(%f : !tile) -> !tile
      %gate = linalg.mul ins(%q, %ht : !tile, !tile) outs(%e : !tile) -> !tile
      %z = linalg.matmul ins(%gate, %u : !tile, !weight) outs(%f : !tile) -> !tile
      %new = linalg.add ins(%p, %z : !tile, !tile) outs(%e : !tile) -> !tile
      "parc.write"(%new, %h) {at = #next} : (!tile, !state) -> ()
    }) {name = "above", domain = #steps} : () -> ()
  }) {symbols = ["T"]} : (index) -> !parc.solution
  %G = "parc.array"(%s) {name = "G"} : (!parc.solution) -> !state
  %H = "parc.array"(%r) {name = "H"} : (!parc.solution) -> !state
  return %G, %H : !state, !state
}
