// RUN: parc-opt %s --parc-lower-launches | filecheck %s
// RUN: parc-opt %s --parc-lower-launches --parc-lower-to-llvm | filecheck %s --check-prefix=LLVM

// A launch becomes a call of the runtime with the number of its kernel and pointers to the fields of its arguments:
// an index has one, a buffer of two dimensions seven. The kernels' modules go.

// CHECK: module attributes {parc.kernels = ["step", "last"]}
// CHECK: func.func private @parc_launch(i64, i64, i64, i64, i64, !llvm.ptr, i64)
// CHECK: func.func @main(%{{.*}}: index, %[[BLOCKS:.*]]: index, %{{.*}}: memref<?xi8>, %[[N:.*]]: index, %[[X:.*]]: memref<?x64xf32>)
// CHECK: %[[FIELDS:.*]] = llvm.alloca %{{.*}} x i64
// CHECK: %[[ARGV:.*]] = llvm.alloca %{{.*}} x !llvm.ptr
// CHECK: scf.for %[[I:.*]] =
// CHECK: %[[FIRST:.*]] = arith.index_cast %[[I]] : index to i64
// CHECK: %[[POINTER:.*]] = memref.extract_aligned_pointer_as_index %[[X]]
// CHECK: %[[ADDRESS:.*]] = arith.index_cast %[[POINTER]]
// CHECK: %{{.*}}, %[[OFFSET:.*]], %[[SIZES:.*]]:2, %{{.*}}:2 = memref.extract_strided_metadata %[[X]]
// CHECK: %[[ROWS:.*]] = arith.index_cast %[[SIZES]]#0
// CHECK: %[[SLOT0:.*]] = llvm.getelementptr %[[FIELDS]][0]
// CHECK: llvm.store %[[FIRST]], %[[SLOT0]]
// CHECK: %[[SLOT1:.*]] = llvm.getelementptr %[[FIELDS]][1]
// CHECK: llvm.store %[[ADDRESS]], %[[SLOT1]]
// CHECK: %[[SLOT2:.*]] = llvm.getelementptr %[[FIELDS]][2]
// CHECK: llvm.store %[[ADDRESS]], %[[SLOT2]]
// CHECK: %[[SLOT4:.*]] = llvm.getelementptr %[[FIELDS]][4]
// CHECK: llvm.store %[[ROWS]], %[[SLOT4]]
// CHECK: %[[STEP:.*]] = arith.constant 0 : i64
// CHECK: %[[GRID:.*]] = arith.index_cast %[[N]]
// CHECK: %[[BLOCK:.*]] = arith.index_cast %{{.*}}
// CHECK: %[[NO_SHARED:.*]] = arith.constant 0 : i64
// CHECK: %[[ALONE:.*]] = arith.constant 0 : i64
// CHECK: %[[COUNT:.*]] = arith.constant 8 : i64
// CHECK: call @parc_launch(%[[STEP]], %[[GRID]], %[[BLOCK]], %[[NO_SHARED]], %[[ALONE]], %[[ARGV]], %[[COUNT]])
// CHECK: }
// CHECK: %[[LAST:.*]] = arith.constant 1 : i64
// CHECK: %[[ALL:.*]] = arith.index_cast %[[BLOCKS]]
// CHECK: %[[SHARED:.*]] = arith.extsi %{{.*}} : i32 to i64
// CHECK: %[[TOGETHER:.*]] = arith.constant 1 : i64
// CHECK: call @parc_launch(%[[LAST]], %[[ALL]], %{{.*}}, %[[SHARED]], %[[TOGETHER]], %[[ARGV]],
// CHECK-NOT: gpu.

// LLVM: llvm.func @parc_launch(i64, i64, i64, i64, i64, !llvm.ptr, i64)
// LLVM: llvm.func @main
// LLVM: llvm.call @parc_launch
// LLVM: llvm.call @parc_launch
module attributes {gpu.container_module} {
  func.func @main(%tid: index, %blocks: index, %arena: memref<?xi8>, %n: index, %x: memref<?x64xf32>) {
    %c0 = arith.constant 0 : index
    %c1 = arith.constant 1 : index
    %c256 = arith.constant 256 : index
    %shared = arith.constant 49152 : i32
    scf.for %i = %c0 to %n step %c1 {
      gpu.launch_func @step::@step blocks in (%n, %c1, %c1) threads in (%c256, %c1, %c1)
        args(%i : index, %x : memref<?x64xf32>)
    }
    gpu.launch_func @last::@last blocks in (%blocks, %c1, %c1) threads in (%c256, %c1, %c1)
      dynamic_shared_memory_size %shared args(%arena : memref<?xi8>) {parc.cooperative}
    return
  }
  gpu.module @step {
    gpu.func @step(%i: index, %x: memref<?x64xf32>) kernel {
      gpu.return
    }
  }
  gpu.module @last {
    gpu.func @last(%arena: memref<?xi8>) kernel {
      gpu.return
    }
  }
}
