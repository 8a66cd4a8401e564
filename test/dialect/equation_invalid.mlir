// RUN: parc-opt %s --split-input-file --verify-diagnostics

func.func @has_a_name(%T: index, %x: tensor<?x8xf32>) {
  %s = "parc.system"(%T) ({
    // expected-error @below {{requires a `name`}}
    "parc.equation"() ({
    ^bb0(%t: index):
    }) {domain = affine_set<(t)[T] : (t >= 0)>} : () -> ()
  }) {symbols = ["T"]} : (index) -> !parc.solution
  return
}

// -----

func.func @domain_is_a_set(%T: index) {
  %s = "parc.system"(%T) ({
    // expected-error @below {{expects `domain` to be an affine set}}
    "parc.equation"() ({
    ^bb0(%t: index):
    }) {name = "cell", domain = affine_map<(t)[T] -> (t)>} : () -> ()
  }) {symbols = ["T"]} : (index) -> !parc.solution
  return
}

// -----

func.func @lives_in_a_system() {
  // expected-error @below {{expects to be inside `parc.system`}}
  "parc.equation"() ({
  ^bb0(%t: index):
  }) {name = "cell", domain = affine_set<(t)[T] : (t >= 0)>} : () -> ()
  return
}

// -----

func.func @has_a_body(%T: index) {
  %s = "parc.system"(%T) ({
    // expected-error @below {{expects a body of one block}}
    "parc.equation"() ({
    }) {name = "cell", domain = affine_set<(t)[T] : (t >= 0)>} : () -> ()
  }) {symbols = ["T"]} : (index) -> !parc.solution
  return
}

// -----

func.func @a_coordinate_per_dimension(%T: index) {
  %s = "parc.system"(%T) ({
    // expected-error @below {{expects one index block argument per domain dimension (2)}}
    "parc.equation"() ({
    ^bb0(%t: index):
    }) {name = "cell", domain = affine_set<(l, t)[T] : (t >= 0)>} : () -> ()
  }) {symbols = ["T"]} : (index) -> !parc.solution
  return
}

// -----

func.func @writes(%T: index, %x: tensor<?x8xf32>) {
  %s = "parc.system"(%T) ({
    // expected-error @below {{writes nothing}}
    "parc.equation"() ({
    ^bb0(%t: index):
      %xt = "parc.read"(%x) {at = affine_map<(t)[T] -> (t)>} : (tensor<?x8xf32>) -> tensor<8xf32>
    }) {name = "cell", domain = affine_set<(t)[T] : (t >= 0)>} : () -> ()
  }) {symbols = ["T"]} : (index) -> !parc.solution
  return
}

// -----

func.func @schedule_is_a_map_of_its_dimensions(%T: index, %x: tensor<?x8xf32>) {
  %s = "parc.system"(%T) ({
    %h = "parc.unknown"() {name = "H", shape = affine_map<()[T] -> (T, 8)>} : () -> tensor<?x8xf32>
    // expected-error @below {{expects `schedule` to be an affine map of its 1 dimensions}}
    "parc.equation"() ({
    ^bb0(%t: index):
      %xt = "parc.read"(%x) {at = affine_map<(t)[T] -> (t)>} : (tensor<?x8xf32>) -> tensor<8xf32>
      "parc.write"(%xt, %h) {at = affine_map<(t)[T] -> (t)>} : (tensor<8xf32>, tensor<?x8xf32>) -> ()
    }) {name = "cell", domain = affine_set<(t)[T] : (t >= 0)>, schedule = affine_map<(l, t)[T] -> (l + t)>} : () -> ()
  }) {symbols = ["T"]} : (index) -> !parc.solution
  return
}
