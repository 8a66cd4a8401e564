// RUN: parc-opt %s --split-input-file --verify-diagnostics

func.func @symbols_are_names(%T: index) {
  // expected-error @below {{expects `symbols` to be an array of names}}
  %s = "parc.system"(%T) ({
  }) {symbols = [1]} : (index) -> !parc.solution
  return
}

// -----

func.func @one_value_per_symbol(%T: index) {
  // expected-error @below {{has 2 symbols but 1 values for them}}
  %s = "parc.system"(%T) ({
  }) {symbols = ["T", "B"]} : (index) -> !parc.solution
  return
}

// -----

func.func @values_are_indices(%T: i32) {
  // expected-error @below {{expects the values of its symbols to be of type index}}
  %s = "parc.system"(%T) ({
  }) {symbols = ["T"]} : (i32) -> !parc.solution
  return
}

// -----

func.func @the_result_is_a_solution(%T: index) {
  // expected-error @below {{expects a result of type !parc.solution}}
  %s = "parc.system"(%T) ({
  }) {symbols = ["T"]} : (index) -> index
  return
}

// -----

func.func @one_block(%T: index) {
  // expected-error @below {{expects a body of one block}}
  %s = "parc.system"(%T) ({
  ^a:
    %h = "parc.unknown"() {name = "H", shape = affine_map<()[T] -> (T)>} : () -> tensor<?xf32>
  ^b:
    %g = "parc.unknown"() {name = "G", shape = affine_map<()[T] -> (T)>} : () -> tensor<?xf32>
  }) {symbols = ["T"]} : (index) -> !parc.solution
  return
}

// -----

func.func @members_only(%T: index) {
  // expected-error @below {{allows only unknowns, boundaries and equations in its body, found 'arith.constant'}}
  %s = "parc.system"(%T) ({
    %c = arith.constant 0 : index
  }) {symbols = ["T"]} : (index) -> !parc.solution
  return
}

// -----

func.func @names_are_unique(%T: index) {
  // expected-error @below {{has two members named "H"}}
  %s = "parc.system"(%T) ({
    %h = "parc.unknown"() {name = "H", shape = affine_map<()[T] -> (T)>} : () -> tensor<?xf32>
    %g = "parc.unknown"() {name = "H", shape = affine_map<()[T] -> (T)>} : () -> tensor<?xf32>
  }) {symbols = ["T"]} : (index) -> !parc.solution
  return
}

// -----

func.func @maps_use_the_systems_symbols(%T: index) {
  %s = "parc.system"(%T) ({
    // expected-error @below {{`shape` has 2 symbols, the system has 1: T}}
    %h = "parc.unknown"() {name = "H", shape = affine_map<()[T, B] -> (T)>} : () -> tensor<?xf32>
  }) {symbols = ["T"]} : (index) -> !parc.solution
  return
}
