// RUN: parc-opt %s --parc-bufferize --split-input-file --verify-diagnostics
// RUN: not parc-opt %s --parc-bufferize --split-input-file 2>%t | filecheck %s

// A result is computed where the caller wants it.

// CHECK: func.func @main(%[[X:[a-z0-9]+]]: memref<4xf32>, %[[Y:[a-z0-9]+]]: memref<4xf32> {parc.kind = "result", parc.name = "y"})
// CHECK-NOT: memref.alloc
// CHECK: linalg.exp ins(%[[X]] : memref<4xf32>) outs(%[[Y]] : memref<4xf32>)
// CHECK: return{{$}}
func.func @main(%x: tensor<4xf32>) -> (tensor<4xf32> {parc.name = "y"}) {
  %e = tensor.empty() : tensor<4xf32>
  %y = linalg.exp ins(%x : tensor<4xf32>) outs(%e : tensor<4xf32>) -> tensor<4xf32>
  return %y : tensor<4xf32>
}

// -----

// Arguments are the caller's: nothing is written to them, and one that is returned is copied.

// CHECK: func.func @main(%[[X:[a-z0-9]+]]: memref<4xf32>, %[[Y:[a-z0-9]+]]: memref<4xf32> {parc.kind = "result"}, %[[Z:[a-z0-9]+]]: memref<4xf32> {parc.kind = "result"})
// CHECK-NOT: outs(%[[X]]
// CHECK: linalg.exp ins(%[[X]] : memref<4xf32>) outs(%[[Y]] : memref<4xf32>)
// CHECK: memref.copy %[[X]], %[[Z]]
func.func @main(%x: tensor<4xf32>) -> (tensor<4xf32>, tensor<4xf32>) {
  %y = linalg.exp ins(%x : tensor<4xf32>) outs(%x : tensor<4xf32>) -> tensor<4xf32>
  return %y, %x : tensor<4xf32>, tensor<4xf32>
}

// -----

// A scalar result is a buffer without dimensions.

// CHECK: func.func @main(%[[X:[a-z0-9]+]]: memref<4xf32>, %[[Y:[a-z0-9]+]]: memref<f32> {parc.kind = "result"})
// CHECK: %[[V:.*]] = memref.load %[[X]]
// CHECK: memref.store %[[V]], %[[Y]][]
func.func @main(%x: tensor<4xf32>) -> f32 {
  %c2 = arith.constant 2 : index
  %y = tensor.extract %x[%c2] : tensor<4xf32>
  return %y : f32
}

// -----

// What has no form on buffers is named.

func.func @main(%x: tensor<4x4xf32>) -> tensor<4x4xf32> {
  // expected-error @below {{the operation 'tosa.reverse' is not supported on the CPU}}
  %y = tosa.reverse %x {axis = 0 : i32} : (tensor<4x4xf32>) -> tensor<4x4xf32>
  return %y : tensor<4x4xf32>
}

// -----

// A value that is returned twice is computed for the first result and copied to the second.

// CHECK: func.func @main(%[[X:[a-z0-9]+]]: memref<4xf32>, %[[Y:[a-z0-9]+]]: memref<4xf32> {parc.kind = "result"}, %[[Z:[a-z0-9]+]]: memref<4xf32> {parc.kind = "result"})
// CHECK: linalg.exp ins(%[[X]] : memref<4xf32>) outs(%[[Y]] : memref<4xf32>)
// CHECK: memref.copy %[[Y]], %[[Z]]
func.func @main(%x: tensor<4xf32>) -> (tensor<4xf32>, tensor<4xf32>) {
  %e = tensor.empty() : tensor<4xf32>
  %y = linalg.exp ins(%x : tensor<4xf32>) outs(%e : tensor<4xf32>) -> tensor<4xf32>
  return %y, %y : tensor<4xf32>, tensor<4xf32>
}

// -----

// Each thread of a team computes into a buffer of its own: the tensor that it starts from is copied into the team.

// CHECK: func.func @main
// CHECK-NOT: memref.alloc
// CHECK: "parc.team"()
// CHECK: %[[P:.*]] = memref.alloc
// CHECK: linalg.fill {{.*}} outs(%[[P]] : memref<4x4xf32>)
// CHECK: linalg.matmul ins(%{{.*}}, %{{.*}} : {{.*}}) outs(%[[P]] : memref<4x4xf32>)
func.func @main(%x: tensor<4x4xf32>, %y: memref<4x4xf32>) {
  %zero = arith.constant 0.0 : f32
  %e = tensor.empty() : tensor<4x4xf32>
  %start = linalg.fill ins(%zero : f32) outs(%e : tensor<4x4xf32>) -> tensor<4x4xf32>
  "parc.team"() ({
  ^bb0(%thread: index, %threads: index):
    %p = linalg.matmul ins(%x, %x : tensor<4x4xf32>, tensor<4x4xf32>) outs(%start : tensor<4x4xf32>) -> tensor<4x4xf32>
    %q = linalg.matmul ins(%p, %x : tensor<4x4xf32>, tensor<4x4xf32>) outs(%start : tensor<4x4xf32>) -> tensor<4x4xf32>
    bufferization.materialize_in_destination %q in writable %y : (tensor<4x4xf32>, memref<4x4xf32>) -> ()
  }) : () -> ()
  return
}
