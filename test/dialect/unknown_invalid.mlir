// RUN: parc-opt %s --split-input-file --verify-diagnostics

func.func @has_a_name(%T: index) {
  %s = "parc.system"(%T) ({
    // expected-error @below {{requires a `name`}}
    %h = "parc.unknown"() {shape = affine_map<()[T] -> (T)>} : () -> tensor<?xf32>
  }) {symbols = ["T"]} : (index) -> !parc.solution
  return
}

// -----

func.func @lives_in_a_system() {
  // expected-error @below {{expects to be inside `parc.system`}}
  %h = "parc.unknown"() {name = "H", shape = affine_map<()[T] -> (T)>} : () -> tensor<?xf32>
  return
}

// -----

func.func @shape_is_a_map(%T: index) {
  %s = "parc.system"(%T) ({
    // expected-error @below {{expects `shape` to be an affine map of the symbols}}
    %h = "parc.unknown"() {name = "H", shape = [4]} : () -> tensor<4xf32>
  }) {symbols = ["T"]} : (index) -> !parc.solution
  return
}

// -----

func.func @is_a_ranked_tensor(%T: index) {
  %s = "parc.system"(%T) ({
    // expected-error @below {{expects a ranked tensor result, got tensor<*xf32>}}
    %h = "parc.unknown"() {name = "H", shape = affine_map<()[T] -> (T)>} : () -> tensor<*xf32>
  }) {symbols = ["T"]} : (index) -> !parc.solution
  return
}

// -----

func.func @shape_has_every_extent(%T: index) {
  %s = "parc.system"(%T) ({
    // expected-error @below {{expects `shape` to have no dimensions and 2 results, got ()[s0] -> (s0)}}
    %h = "parc.unknown"() {name = "H", shape = affine_map<()[T] -> (T)>} : () -> tensor<?x8xf32>
  }) {symbols = ["T"]} : (index) -> !parc.solution
  return
}

// -----

func.func @shape_agrees_with_the_type(%T: index) {
  %s = "parc.system"(%T) ({
    // expected-error @below {{has extent 1 = 8 in its type but 9 in `shape`}}
    %h = "parc.unknown"() {name = "H", shape = affine_map<()[T] -> (T, 9)>} : () -> tensor<?x8xf32>
  }) {symbols = ["T"]} : (index) -> !parc.solution
  return
}

// -----

func.func @storage_keeps_indices_apart(%T: index) {
  %s = "parc.system"(%T) ({
    // expected-error @below {{'parc.unknown' op expects index 0 of `storage` to be d0, (d0 + ...) mod a constant or 0: d1}}
    %h = "parc.unknown"() {name = "H", shape = affine_map<()[T] -> (T, T, 8)>, storage = affine_map<(i, j)[T] -> (j, i)>}
      : () -> tensor<?x?x8xf32>
  }) {symbols = ["T"]} : (index) -> !parc.solution
  return
}

// -----

func.func @storage_has_a_place_for_each_index(%T: index) {
  %s = "parc.system"(%T) ({
    // expected-error @below {{'parc.unknown' op expects `storage` to have at most 2 indices and as many results, got (d0, d1)[s0] -> (d0)}}
    %h = "parc.unknown"() {name = "H", shape = affine_map<()[T] -> (T, 8)>, storage = affine_map<(i, j)[T] -> (i)>}
      : () -> tensor<?x8xf32>
  }) {symbols = ["T"]} : (index) -> !parc.solution
  return
}
