// RUN: parc-opt %s --split-input-file --verify-diagnostics

func.func @names_thread_and_size() {
  // expected-error @below {{expects a body of one block with two index arguments}}
  "parc.team"() ({
  ^bb0(%thread: index):
    "parc.barrier"() : () -> ()
  }) : () -> ()
  return
}

// -----

func.func @arrives_alone() {
  // expected-error @below {{expects to be inside `parc.team`}}
  "parc.arrive"() : () -> ()
  return
}

// -----

func.func @waits_alone(%size: index, %crews: i64) {
  // expected-error @below {{expects to be inside `parc.team`}}
  "parc.await"(%size, %crews) : (index, i64) -> ()
  return
}

// -----

func.func @waits_for_a_number(%size: index) {
  "parc.team"() ({
  ^bb0(%thread: index, %threads: index):
    // expected-error @below {{expects a size of type index and a set of crews of type i64, got index, index}}
    "parc.await"(%size, %thread) : (index, index) -> ()
  }) : () -> ()
  return
}
