// RUN: parc-opt %s --split-input-file --verify-diagnostics --parc-verify-schedule
// RUN: parc-opt %s --split-input-file --verify-diagnostics --parc-lower-to-loops

// Storage is refused when an element is overwritten before its last reader, or by another thread at the same time; the
// message names both instances.

// The state of a step is still read by other threads while they compute the next one.
#here = affine_map<(t)[T] -> (t)>
#next = affine_map<(t)[T] -> (t + 1)>
#start = affine_map<()[T] -> (0)>
#whole = affine_map<()[T] -> ()>
#once = affine_set<()[T] : (0 == 0)>
#steps = affine_set<(t)[T] : (t >= 0, T - 1 - t >= 0)>
#states = affine_map<()[T] -> (T + 1, 8)>
func.func @main(%T: index, %x: tensor<?x8xf32>, %h0: tensor<8xf32>) {
  %s = "parc.system"(%T) ({
    // expected-error @below {{cell[t=0] writes H[1] in the place of H[0], which cell[t=0] reads no earlier for T=1}}
    %h = "parc.unknown"() {name = "H", shape = #states, storage = affine_map<(i)[T] -> (0)>} : () -> tensor<?x8xf32>
    "parc.boundary"(%h, %h0) {domain = #once, to = #start, of = #whole} : (tensor<?x8xf32>, tensor<8xf32>) -> ()
    "parc.equation"() ({
    ^bb0(%t: index):
      %a = "parc.read"(%x) {at = #here} : (tensor<?x8xf32>) -> tensor<8xf32>
      %b = "parc.read"(%h) {at = #here} : (tensor<?x8xf32>) -> tensor<8xf32>
      %c = arith.addf %a, %b : tensor<8xf32>
      "parc.write"(%c, %h) {at = #next} : (tensor<8xf32>, tensor<?x8xf32>) -> ()
    }) {name = "cell", domain = #steps, schedule = #here} : () -> ()
  }) {symbols = ["T"], distribute = "units"} : (index) -> !parc.solution
  return
}

// -----

// The second layer reads all states of the first, in layer order.
#here = affine_map<(t)[T] -> (t)>
#steps = affine_set<(t)[T] : (t >= 0, T - 1 - t >= 0)>
#steps_of_one = affine_map<()[T] -> (T, 8)>
func.func @main(%T: index, %x: tensor<?x8xf32>) {
  %s = "parc.system"(%T) ({
    // expected-error @below {{layer0[t=16] writes G[16] in the place of G[0], which layer1[t=0] reads no earlier for T=17}}
    %g = "parc.unknown"() {name = "G", shape = #steps_of_one, storage = affine_map<(i)[T] -> (i mod 16)>} : () -> tensor<?x8xf32>
    %h = "parc.unknown"() {name = "H", shape = #steps_of_one} : () -> tensor<?x8xf32>
    "parc.equation"() ({
    ^bb0(%t: index):
      %a = "parc.read"(%x) {at = #here} : (tensor<?x8xf32>) -> tensor<8xf32>
      "parc.write"(%a, %g) {at = #here} : (tensor<8xf32>, tensor<?x8xf32>) -> ()
    }) {name = "layer0", domain = #steps, schedule = affine_map<(t)[T] -> (0, t)>} : () -> ()
    "parc.equation"() ({
    ^bb0(%t: index):
      %a = "parc.read"(%g) {at = #here} : (tensor<?x8xf32>) -> tensor<8xf32>
      "parc.write"(%a, %h) {at = #here} : (tensor<8xf32>, tensor<?x8xf32>) -> ()
    }) {name = "layer1", domain = #steps, schedule = affine_map<(t)[T] -> (1, t)>} : () -> ()
  }) {symbols = ["T"], distribute = "units"} : (index) -> !parc.solution
  return
}

// -----

// Layer 0 may be a step ahead of layer 1, which another thread runs: right with barriers after each time only.
#here = affine_map<(t)[T] -> (t)>
#steps = affine_set<(t)[T] : (t >= 0, T - 1 - t >= 0)>
#steps_of_one = affine_map<()[T] -> (T, 8)>
func.func @main(%T: index, %x: tensor<?x8xf32>) {
  %s = "parc.system"(%T) ({
    // expected-error @below {{layer0[t=1] writes G[1] in the place of G[0], which layer1[t=0] reads no earlier for T=2}}
    %g = "parc.unknown"() {name = "G", shape = #steps_of_one, storage = affine_map<(i)[T] -> (0)>} : () -> tensor<?x8xf32>
    %h = "parc.unknown"() {name = "H", shape = #steps_of_one} : () -> tensor<?x8xf32>
    "parc.equation"() ({
    ^bb0(%t: index):
      %a = "parc.read"(%x) {at = #here} : (tensor<?x8xf32>) -> tensor<8xf32>
      "parc.write"(%a, %g) {at = #here} : (tensor<8xf32>, tensor<?x8xf32>) -> ()
    }) {name = "layer0", domain = #steps, schedule = affine_map<(t)[T] -> (t, 1)>, owner = affine_map<(t)[T] -> (0)>} : () -> ()
    "parc.equation"() ({
    ^bb0(%t: index):
      %a = "parc.read"(%g) {at = #here} : (tensor<?x8xf32>) -> tensor<8xf32>
      "parc.write"(%a, %h) {at = #here} : (tensor<8xf32>, tensor<?x8xf32>) -> ()
    }) {name = "layer1", domain = #steps, schedule = affine_map<(t)[T] -> (t + 1, 0)>, owner = affine_map<(t)[T] -> (1)>} : () -> ()
  }) {symbols = ["T"], distribute = "points"} : (index) -> !parc.solution
  return
}

// -----

// What is a result stays in use.
#here = affine_map<(t)[T] -> (t)>
#steps = affine_set<(t)[T] : (t >= 0, T - 1 - t >= 0)>
func.func @main(%T: index, %x: tensor<?x8xf32>) -> (tensor<8xf32>, tensor<8xf32>) {
  %s = "parc.system"(%T) ({
    // expected-error @below {{layer0[t=2] writes G[2] in the place of G[0], which is a result, for T=3}}
    %g = "parc.unknown"() {name = "G", shape = affine_map<()[T] -> (T, 8)>, storage = affine_map<(i)[T] -> (i mod 2)>} : () -> tensor<?x8xf32>
    "parc.equation"() ({
    ^bb0(%t: index):
      %a = "parc.read"(%x) {at = #here} : (tensor<?x8xf32>) -> tensor<8xf32>
      "parc.write"(%a, %g) {at = #here} : (tensor<8xf32>, tensor<?x8xf32>) -> ()
    }) {name = "layer0", domain = #steps, schedule = affine_map<(t)[T] -> (t)>} : () -> ()
  }) {symbols = ["T"], distribute = "units", assume = affine_set<()[T] : (T - 1 >= 0)>} : (index) -> !parc.solution
  %first = "parc.array"(%s) {name = "G", at = affine_map<()[T] -> (0)>} : (!parc.solution) -> tensor<8xf32>
  %last = "parc.array"(%s) {name = "G", at = affine_map<()[T] -> (T - 1)>} : (!parc.solution) -> tensor<8xf32>
  return %first, %last : tensor<8xf32>, tensor<8xf32>
}

// -----

// An access that takes all steps needs them side by side.
#here = affine_map<(t)[T] -> (t)>
#steps = affine_set<(t)[T] : (t >= 0, T - 1 - t >= 0)>
func.func @main(%T: index, %x: tensor<?x8xf32>) -> tensor<?x8xf32> {
  %s = "parc.system"(%T) ({
    // expected-error @below {{the storage of G has 1 indices, but there is an access to it with none}}
    %g = "parc.unknown"() {name = "G", shape = affine_map<()[T] -> (T, 8)>, storage = affine_map<(i)[T] -> (i mod 2)>} : () -> tensor<?x8xf32>
    "parc.equation"() ({
    ^bb0(%t: index):
      %a = "parc.read"(%x) {at = #here} : (tensor<?x8xf32>) -> tensor<8xf32>
      "parc.write"(%a, %g) {at = #here} : (tensor<8xf32>, tensor<?x8xf32>) -> ()
    }) {name = "layer0", domain = #steps, schedule = affine_map<(t)[T] -> (t)>} : () -> ()
  }) {symbols = ["T"], distribute = "units"} : (index) -> !parc.solution
  %all = "parc.array"(%s) {name = "G"} : (!parc.solution) -> tensor<?x8xf32>
  return %all : tensor<?x8xf32>
}
