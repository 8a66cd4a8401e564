// RUN: parc-opt %s --parc-plan-buffers="target=sm_90 blocks=100" --canonicalize --cse | filecheck %s

// The arena starts with a header in which blocks wait for each other: a line, and one word for each of 100 blocks. What is
// in shared memory stays; of a team's other buffers each block has a copy.

// CHECK: func.func @main(%[[ME:[a-z0-9]+]]: index {parc.kind = "thread"}, %[[BLOCKS:[a-z0-9]+]]: index {parc.kind = "threads"}, %[[ARENA:[a-z0-9]+]]: memref<?xi8> {parc.kind = "arena"}
// CHECK-DAG: %[[START:.*]] = arith.constant 512 : index
// CHECK-DAG: memref.view %[[ARENA]][%[[START]]][] : memref<?xi8> to memref<16xf32>
// CHECK: arith.muli %[[ME]]
// CHECK: memref.view %[[ARENA]][%{{.*}}][] : memref<?xi8> to memref<8xf32>
// CHECK: "parc.team"()
// CHECK: memref.alloc() : memref<4xf32, #gpu.address_space<workgroup>>
// CHECK: func.func @arena_size(%[[BLOCKS:.*]]: index) -> index
// CHECK: arith.muli %[[BLOCKS]], %c64
func.func @main(%x: memref<16xf32>, %y: memref<8xf32>) {
  %a = memref.alloc() : memref<16xf32>
  linalg.exp ins(%x : memref<16xf32>) outs(%a : memref<16xf32>)
  "parc.team"() ({
  ^bb0(%me: index, %members: index):
    %c0 = arith.constant 0 : index
    %b = memref.alloc() : memref<8xf32>
    %s = memref.alloc() : memref<4xf32, #gpu.address_space<workgroup>>
    %v = memref.load %s[%c0] : memref<4xf32, #gpu.address_space<workgroup>>
    %w = memref.load %a[%c0] : memref<16xf32>
    memref.store %v, %b[%c0] : memref<8xf32>
    memref.store %w, %b[%c0] : memref<8xf32>
    linalg.exp ins(%b : memref<8xf32>) outs(%y : memref<8xf32>)
  }) : () -> ()
  return
}
