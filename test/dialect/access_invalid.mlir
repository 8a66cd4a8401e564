// RUN: parc-opt %s --split-input-file --verify-diagnostics

func.func @read_lives_in_an_equation(%x: tensor<?x8xf32>) {
  // expected-error @below {{'parc.read' op expects to be inside `parc.equation`}}
  %xt = "parc.read"(%x) {at = affine_map<(t)[T] -> (t)>} : (tensor<?x8xf32>) -> tensor<8xf32>
  return
}

// -----

func.func @read_has_the_accesss_tile(%T: index, %x: tensor<?x8xf32>) {
  %s = "parc.system"(%T) ({
    %h = "parc.unknown"() {name = "H", shape = affine_map<()[T] -> (T, 8)>} : () -> tensor<?x8xf32>
    "parc.equation"() ({
    ^bb0(%t: index):
      // expected-error @below {{'parc.read' op has a tile of tensor<9xf32>, its access gives tensor<8xf32>}}
      %xt = "parc.read"(%x) {at = affine_map<(t)[T] -> (t)>} : (tensor<?x8xf32>) -> tensor<9xf32>
      "parc.write"(%xt, %h) {at = affine_map<(t)[T] -> (t)>} : (tensor<9xf32>, tensor<?x8xf32>) -> ()
    }) {name = "cell", domain = affine_set<(t)[T] : (t >= 0)>} : () -> ()
  }) {symbols = ["T"]} : (index) -> !parc.solution
  return
}

// -----

func.func @read_has_the_domains_dimensions(%T: index, %x: tensor<?x8xf32>) {
  %s = "parc.system"(%T) ({
    %h = "parc.unknown"() {name = "H", shape = affine_map<()[T] -> (T, 8)>} : () -> tensor<?x8xf32>
    "parc.equation"() ({
    ^bb0(%t: index):
      // expected-error @below {{'parc.read' op has `at` = (d0, d1)[s0] -> (d1) of 2 dimensions in a domain of 1}}
      %xt = "parc.read"(%x) {at = affine_map<(l, t)[T] -> (t)>} : (tensor<?x8xf32>) -> tensor<8xf32>
      "parc.write"(%xt, %h) {at = affine_map<(t)[T] -> (t)>} : (tensor<8xf32>, tensor<?x8xf32>) -> ()
    }) {name = "cell", domain = affine_set<(t)[T] : (t >= 0)>} : () -> ()
  }) {symbols = ["T"]} : (index) -> !parc.solution
  return
}

// -----

func.func @write_defines_an_unknown(%T: index, %x: tensor<?x8xf32>) {
  %s = "parc.system"(%T) ({
    "parc.equation"() ({
    ^bb0(%t: index):
      %xt = "parc.read"(%x) {at = affine_map<(t)[T] -> (t)>} : (tensor<?x8xf32>) -> tensor<8xf32>
      // expected-error @below {{'parc.write' op defines an array that is not a `parc.unknown`}}
      "parc.write"(%xt, %x) {at = affine_map<(t)[T] -> (t)>} : (tensor<8xf32>, tensor<?x8xf32>) -> ()
    }) {name = "cell", domain = affine_set<(t)[T] : (t >= 0)>} : () -> ()
  }) {symbols = ["T"]} : (index) -> !parc.solution
  return
}

// -----

func.func @write_has_the_accesss_tile(%T: index, %x: tensor<?x9xf32>) {
  %s = "parc.system"(%T) ({
    %h = "parc.unknown"() {name = "H", shape = affine_map<()[T] -> (T, 8)>} : () -> tensor<?x8xf32>
    "parc.equation"() ({
    ^bb0(%t: index):
      %xt = "parc.read"(%x) {at = affine_map<(t)[T] -> (t)>} : (tensor<?x9xf32>) -> tensor<9xf32>
      // expected-error @below {{'parc.write' op has a tile of tensor<9xf32>, its access gives tensor<8xf32>}}
      "parc.write"(%xt, %h) {at = affine_map<(t)[T] -> (t)>} : (tensor<9xf32>, tensor<?x8xf32>) -> ()
    }) {name = "cell", domain = affine_set<(t)[T] : (t >= 0)>} : () -> ()
  }) {symbols = ["T"]} : (index) -> !parc.solution
  return
}
