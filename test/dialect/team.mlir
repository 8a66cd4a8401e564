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

// Members of crews of three wait for their own crew and the first one.
// CHECK-LABEL: @neighbours
// CHECK: "parc.arrive"() : () -> ()
// CHECK-NEXT: "parc.await"(%{{.*}}, %{{.*}}) : (index, i64) -> ()
func.func @neighbours(%out: memref<?xindex>) {
  %three = arith.constant 3 : index
  %one = arith.constant 1 : i64
  "parc.team"() ({
  ^bb0(%thread: index, %size: index):
    memref.store %thread, %out[%thread] : memref<?xindex>
    %crew = arith.divui %thread, %three : index
    %number = arith.index_cast %crew : index to i64
    %own = arith.shli %one, %number : i64
    %both = arith.ori %own, %one : i64
    "parc.arrive"() : () -> ()
    "parc.await"(%three, %both) : (index, i64) -> ()
  }) : () -> ()
  return
}
