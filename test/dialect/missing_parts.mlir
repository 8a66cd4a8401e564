// RUN: parc-opt %s --split-input-file --verify-diagnostics

// What an operation's declaration demands: its attributes, results and regions.

func.func @system_without_symbols(%T: index) {
  // expected-error @below {{attribute "symbols" is expected but not provided}}
  %s = "parc.system"(%T) ({
  }) : (index) -> !parc.solution
  return
}

// -----

func.func @system_without_solution(%T: index) {
  // expected-error @below {{expects exactly 1 results, but got 0}}
  "parc.system"(%T) ({
  }) {symbols = ["T"]} : (index) -> ()
  return
}

// -----

func.func @system_with_two_bodies(%T: index) {
  // expected-error @below {{unexpected number of regions: expected 1 but got 2}}
  %s = "parc.system"(%T) ({
  }, {
  }) {symbols = ["T"]} : (index) -> !parc.solution
  return
}

// -----

func.func @unknown_without_shape(%T: index) {
  %s = "parc.system"(%T) ({
    // expected-error @below {{attribute "shape" is expected but not provided}}
    %h = "parc.unknown"() {name = "H"} : () -> tensor<?xf32>
  }) {symbols = ["T"]} : (index) -> !parc.solution
  return
}

// -----

func.func @equation_without_domain(%T: index) {
  %s = "parc.system"(%T) ({
    // expected-error @below {{attribute "domain" is expected but not provided}}
    "parc.equation"() ({
    ^bb0(%t: index):
    }) {name = "cell"} : () -> ()
  }) {symbols = ["T"]} : (index) -> !parc.solution
  return
}

// -----

func.func @boundary_without_access(%T: index, %h0: tensor<f32>) {
  %s = "parc.system"(%T) ({
    %h = "parc.unknown"() {name = "H", shape = affine_map<()[T] -> (T)>} : () -> tensor<?xf32>
    // expected-error @below {{attribute "of" is expected but not provided}}
    "parc.boundary"(%h, %h0) {domain = affine_set<()[T] : (0 == 0)>, to = affine_map<()[T] -> (0)>} : (tensor<?xf32>, tensor<f32>) -> ()
  }) {symbols = ["T"]} : (index) -> !parc.solution
  return
}

// -----

func.func @no_such_operation() {
  // expected-error @below {{unregistered operation 'parc.nonsense'}}
  "parc.nonsense"() : () -> ()
  return
}
