// RUN: parc-opt %s --parc-unroll-loops --canonicalize | filecheck %s

// A loop with a constant number of steps, and the one inside it, become their steps one after another.

// CHECK-LABEL: func.func @nested
// CHECK-NOT: scf.for
// CHECK-COUNT-6: linalg.exp
// CHECK-NOT: linalg.exp
// CHECK: %[[LAST:.*]] = linalg.tanh
// CHECK-NEXT: return %[[LAST]]
func.func @nested(%x: tensor<8xf32>) -> tensor<8xf32> {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %c2 = arith.constant 2 : index
  %c5 = arith.constant 5 : index
  %y = scf.for %i = %c1 to %c5 step %c2 iter_args(%a = %x) -> tensor<8xf32> {
    %b = scf.for %j = %c2 to %c5 step %c1 iter_args(%c = %a) -> tensor<8xf32> {
      %d = linalg.exp ins(%c : tensor<8xf32>) outs(%x : tensor<8xf32>) -> tensor<8xf32>
      scf.yield %d : tensor<8xf32>
    }
    scf.yield %b : tensor<8xf32>
  }
  %z = linalg.tanh ins(%y : tensor<8xf32>) outs(%x : tensor<8xf32>) -> tensor<8xf32>
  return %z : tensor<8xf32>
}

// Each step has its own number, and reads what the step before yielded.

// CHECK-LABEL: func.func @positions
// CHECK-SAME: (%[[X:.*]]: tensor<3xf32>, %[[INIT:.*]]: tensor<f32>)
// CHECK-DAG: %[[ZERO:.*]] = arith.constant 0 : index
// CHECK-DAG: %[[ONE:.*]] = arith.constant 1 : index
// CHECK: %[[A:.*]] = tensor.extract %[[X]][%[[ZERO]]]
// CHECK-NEXT: %[[FIRST:.*]] = tensor.insert %[[A]] into %[[INIT]][]
// CHECK-NEXT: %[[B:.*]] = tensor.extract %[[X]][%[[ONE]]]
// CHECK-NEXT: %[[SECOND:.*]] = tensor.insert %[[B]] into %[[FIRST]][]
// CHECK-NEXT: return %[[SECOND]]
func.func @positions(%x: tensor<3xf32>, %init: tensor<f32>) -> tensor<f32> {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %c2 = arith.constant 2 : index
  %y = scf.for %i = %c0 to %c2 step %c1 iter_args(%s = %init) -> tensor<f32> {
    %e = tensor.extract %x[%i] : tensor<3xf32>
    %n = tensor.insert %e into %s[] : tensor<f32>
    scf.yield %n : tensor<f32>
  }
  return %y : tensor<f32>
}

// A loop of no steps gives what it was given.

// CHECK-LABEL: func.func @empty
// CHECK-SAME: (%[[X:.*]]: tensor<8xf32>)
// CHECK-NOT: linalg.exp
// CHECK: return %[[X]]
func.func @empty(%x: tensor<8xf32>) -> tensor<8xf32> {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %y = scf.for %i = %c1 to %c0 step %c1 iter_args(%a = %x) -> tensor<8xf32> {
    %b = linalg.exp ins(%a : tensor<8xf32>) outs(%x : tensor<8xf32>) -> tensor<8xf32>
    scf.yield %b : tensor<8xf32>
  }
  return %y : tensor<8xf32>
}

// A number of steps that is not known stays a loop.

// CHECK-LABEL: func.func @dynamic
// CHECK: scf.for
func.func @dynamic(%x: tensor<8xf32>, %n: index) -> tensor<8xf32> {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %y = scf.for %i = %c0 to %n step %c1 iter_args(%a = %x) -> tensor<8xf32> {
    %b = linalg.exp ins(%a : tensor<8xf32>) outs(%x : tensor<8xf32>) -> tensor<8xf32>
    scf.yield %b : tensor<8xf32>
  }
  return %y : tensor<8xf32>
}
