// RUN: parc-opt %s --split-input-file --verify-diagnostics

func.func @names_thread_and_size() {
  // expected-error @below {{expects a body of one block with two index arguments}}
  "parc.team"() ({
  ^bb0(%thread: index):
    "parc.barrier"() : () -> ()
  }) : () -> ()
  return
}
