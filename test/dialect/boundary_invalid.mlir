// RUN: parc-opt %s --split-input-file --verify-diagnostics

func.func @domain_is_a_set(%T: index, %h0: tensor<8xf32>) {
  %s = "parc.system"(%T) ({
    %h = "parc.unknown"() {name = "H", shape = affine_map<()[T] -> (T, 8)>} : () -> tensor<?x8xf32>
    // expected-error @below {{expects `domain` to be an affine set}}
    "parc.boundary"(%h, %h0) {domain = 1, to = affine_map<()[T] -> (0)>, of = affine_map<()[T] -> ()>} : (tensor<?x8xf32>, tensor<8xf32>) -> ()
  }) {symbols = ["T"]} : (index) -> !parc.solution
  return
}

// -----

func.func @lives_in_a_system(%h: tensor<?x8xf32>, %h0: tensor<8xf32>) {
  // expected-error @below {{expects to be inside `parc.system`}}
  "parc.boundary"(%h, %h0) {domain = affine_set<()[T] : (0 == 0)>, to = affine_map<()[T] -> (0)>, of = affine_map<()[T] -> ()>} : (tensor<?x8xf32>, tensor<8xf32>) -> ()
  return
}

// -----

func.func @access_is_a_map(%T: index, %h0: tensor<8xf32>) {
  %s = "parc.system"(%T) ({
    %h = "parc.unknown"() {name = "H", shape = affine_map<()[T] -> (T, 8)>} : () -> tensor<?x8xf32>
    // expected-error @below {{expects `to` to be an affine map}}
    "parc.boundary"(%h, %h0) {domain = affine_set<()[T] : (0 == 0)>, to = [0], of = affine_map<()[T] -> ()>} : (tensor<?x8xf32>, tensor<8xf32>) -> ()
  }) {symbols = ["T"]} : (index) -> !parc.solution
  return
}

// -----

func.func @source_is_a_tensor(%T: index, %h0: f32) {
  %s = "parc.system"(%T) ({
    %h = "parc.unknown"() {name = "H", shape = affine_map<()[T] -> (T)>} : () -> tensor<?xf32>
    // expected-error @below {{expects a ranked tensor, got f32}}
    "parc.boundary"(%h, %h0) {domain = affine_set<()[T] : (0 == 0)>, to = affine_map<()[T] -> (0)>, of = affine_map<()[T] -> ()>} : (tensor<?xf32>, f32) -> ()
  }) {symbols = ["T"]} : (index) -> !parc.solution
  return
}

// -----

func.func @access_has_the_domains_dimensions(%T: index, %h0: tensor<8xf32>) {
  %s = "parc.system"(%T) ({
    %h = "parc.unknown"() {name = "H", shape = affine_map<()[T] -> (T, 8)>} : () -> tensor<?x8xf32>
    // expected-error @below {{has `to` = ()[s0] -> (0) of 0 dimensions in a domain of 1}}
    "parc.boundary"(%h, %h0) {domain = affine_set<(l)[T] : (l == 0)>, to = affine_map<()[T] -> (0)>, of = affine_map<(l)[T] -> ()>} : (tensor<?x8xf32>, tensor<8xf32>) -> ()
  }) {symbols = ["T"]} : (index) -> !parc.solution
  return
}

// -----

func.func @access_fits_the_rank(%T: index, %h0: tensor<8xf32>) {
  %s = "parc.system"(%T) ({
    %h = "parc.unknown"() {name = "H", shape = affine_map<()[T] -> (T, 8)>} : () -> tensor<?x8xf32>
    // expected-error @below {{has `of` = ()[s0] -> (0, 0) with more results than tensor<8xf32> has dimensions}}
    "parc.boundary"(%h, %h0) {domain = affine_set<()[T] : (0 == 0)>, to = affine_map<()[T] -> (0)>, of = affine_map<()[T] -> (0, 0)>} : (tensor<?x8xf32>, tensor<8xf32>) -> ()
  }) {symbols = ["T"]} : (index) -> !parc.solution
  return
}

// -----

func.func @tiles_fit(%T: index, %h0: tensor<9xf32>) {
  %s = "parc.system"(%T) ({
    %h = "parc.unknown"() {name = "H", shape = affine_map<()[T] -> (T, 8)>} : () -> tensor<?x8xf32>
    // expected-error @below {{gives tiles of tensor<9xf32> to an array with tiles of tensor<8xf32>}}
    "parc.boundary"(%h, %h0) {domain = affine_set<()[T] : (0 == 0)>, to = affine_map<()[T] -> (0)>, of = affine_map<()[T] -> ()>} : (tensor<?x8xf32>, tensor<9xf32>) -> ()
  }) {symbols = ["T"]} : (index) -> !parc.solution
  return
}

// -----

func.func @defines_an_unknown(%T: index, %h: tensor<?x8xf32>, %h0: tensor<8xf32>) {
  %s = "parc.system"(%T) ({
    // expected-error @below {{defines an array that is not a `parc.unknown`}}
    "parc.boundary"(%h, %h0) {domain = affine_set<()[T] : (0 == 0)>, to = affine_map<()[T] -> (0)>, of = affine_map<()[T] -> ()>} : (tensor<?x8xf32>, tensor<8xf32>) -> ()
  }) {symbols = ["T"]} : (index) -> !parc.solution
  return
}
