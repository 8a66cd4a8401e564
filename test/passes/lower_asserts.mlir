// RUN: parc-opt %s --parc-lower-asserts | filecheck %s

// A failed check leaves the number of its message in the arena; the load that it guards goes on at an index inside.

// CHECK: module attributes {parc.assertions = ["index out of range"]}
// CHECK: func.func @main
// CHECK: %[[STATUS:.*]] = memref.view %{{.*}}[%{{.*}}][] : memref<?xi8> to memref<1xi64>
// CHECK-NOT: cf.assert
// CHECK: %[[FAILED:.*]] = arith.xori
// CHECK: scf.if %[[FAILED]] {
// CHECK: %[[ONE:.*]] = arith.constant 1 : i64
// CHECK: memref.store %[[ONE]], %[[STATUS]]
// CHECK: %[[LOW:.*]] = arith.maxsi
// CHECK: %[[INSIDE:.*]] = arith.minsi %[[LOW]]
// CHECK: memref.load %{{.*}}[%[[INSIDE]]] : memref<10xf32>
func.func @main(%tid: index {parc.kind = "thread"}, %nthreads: index {parc.kind = "threads"}, %arena: memref<?xi8> {parc.kind = "arena"},
    %token: memref<i64>, %table: memref<10xf32>, %y: memref<f32> {parc.kind = "result"}) {
  %c10 = arith.constant 10 : i64
  %t = memref.load %token[] : memref<i64>
  %ok = arith.cmpi ult, %t, %c10 : i64
  cf.assert %ok, "index out of range"
  %i = arith.index_cast %t : i64 to index
  %e = memref.load %table[%i] : memref<10xf32>
  memref.store %e, %y[] : memref<f32>
  return
}
