// RUN: parc-opt %s --split-input-file --verify-diagnostics

func.func @has_a_name(%s: !parc.solution) {
  // expected-error @below {{requires a `name`}}
  %h = "parc.array"(%s) : (!parc.solution) -> tensor<?xf32>
  return
}

// -----

func.func @takes_the_solution_of_a_system(%s: !parc.solution) {
  // expected-error @below {{expects the solution of a `parc.system`}}
  %h = "parc.array"(%s) {name = "H"} : (!parc.solution) -> tensor<?xf32>
  return
}

// -----

func.func @names_an_unknown(%T: index) {
  %s = "parc.system"(%T) ({
    %h = "parc.unknown"() {name = "H", shape = affine_map<()[T] -> (T)>} : () -> tensor<?xf32>
  }) {symbols = ["T"]} : (index) -> !parc.solution
  // expected-error @below {{names "G", which is no unknown of the system}}
  %g = "parc.array"(%s) {name = "G"} : (!parc.solution) -> tensor<?xf32>
  return
}

// -----

func.func @has_the_unknowns_type(%T: index) {
  %s = "parc.system"(%T) ({
    %h = "parc.unknown"() {name = "H", shape = affine_map<()[T] -> (T)>} : () -> tensor<?xf32>
  }) {symbols = ["T"]} : (index) -> !parc.solution
  // expected-error @below {{has a type other than that of unknown "H": tensor<?xf32>}}
  %g = "parc.array"(%s) {name = "H"} : (!parc.solution) -> tensor<?xf64>
  return
}

// -----

func.func @array_has_the_type_of_its_tile(%T: index) {
  %s = "parc.system"(%T) ({
    %h = "parc.unknown"() {name = "H", shape = affine_map<()[T] -> (T, 8)>} : () -> tensor<?x8xf32>
  }) {symbols = ["T"]} : (index) -> !parc.solution
  // expected-error @below {{'parc.array' op has a type other than that of unknown "H": tensor<8xf32>}}
  %H = "parc.array"(%s) {name = "H", at = affine_map<()[T] -> (0)>} : (!parc.solution) -> tensor<?x8xf32>
  return
}
