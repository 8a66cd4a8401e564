// RUN: parc-opt %s | parc-opt | filecheck %s
// RUN: parc-opt %s --emit-bytecode | parc-opt | filecheck %s

// Every thread of the team stores its number, and waits for the others.
// CHECK-LABEL: @numbers
// CHECK: "parc.team"() ({
// CHECK-NEXT: ^bb0(%[[THREAD:.*]]: index, %{{.*}}: index):
// CHECK-NEXT: memref.store %[[THREAD]]
// CHECK-NEXT: "parc.barrier"() : () -> ()
// CHECK-NEXT: }) : () -> ()
func.func @numbers(%out: memref<?xindex>) {
  "parc.team"() ({
  ^bb0(%thread: index, %size: index):
    memref.store %thread, %out[%thread] : memref<?xindex>
    "parc.barrier"() : () -> ()
  }) : () -> ()
  return
}
