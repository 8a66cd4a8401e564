// RUN: parc-opt %s --parc-lower-iterations --canonicalize --split-input-file | filecheck %s

// One buffer for the array; what is the same in every sweep is computed before the first.

// CHECK: func.func @main(%[[N:.*]]: index {{.*}}, %[[X:.*]]: tensor<?xf32> {{.*}}) -> (tensor<?xf32>, tensor<i64> {parc.kind = "statistic", parc.name = "roots.sweeps", parc.solver = "{{.*}}", parc.tolerance = {{.*}} : f64}, tensor<f64> {parc.kind = "statistic", parc.name = "roots.change", parc.solver = "{{.*}}", parc.tolerance = {{.*}} : f64})
// CHECK: %[[SQUARE:.*]] = linalg.square ins(%[[X]]
// CHECK: %[[A:.*]] = memref.alloc(%[[N]]) : memref<?xf32>
// CHECK: linalg.copy {{.*}} outs(%[[A]]
// CHECK: %[[LAST:.*]]:2 = scf.while (%{{.*}} = %c0, %{{.*}} = %{{.*}}) : (index, f32) -> (index, f32) {
// CHECK:   %[[MORE:.*]] = arith.cmpi slt, %[[K:.*]], %[[N]] : index
// CHECK:   %[[FAR:.*]] = arith.cmpf ugt, %[[C:.*]], %{{.*}} : f32
// CHECK:   %[[GO:.*]] = arith.andi %[[MORE]], %[[FAR]]
// CHECK:   scf.condition(%[[GO]]) %[[K]], %[[C]]
// CHECK: } do {
// CHECK:   %[[OLD:.*]] = bufferization.to_tensor %[[A]] restrict
// CHECK:   linalg.add ins(%[[OLD]], %[[SQUARE]]
// CHECK:   %[[CHANGE:.*]] = tensor.extract
// CHECK:   linalg.copy {{.*}} outs(%[[A]]
// CHECK:   scf.yield %{{.*}}, %[[CHANGE]]
// CHECK: }
// Where that was not enough, the array is what is computed otherwise.
// CHECK: %[[NOT_YET:.*]] = arith.cmpf ugt, %[[LAST]]#1
// CHECK: scf.if %[[NOT_YET]] {
// CHECK:   linalg.sqrt
// CHECK:   linalg.copy {{.*}} outs(%[[A]]
// CHECK: }
// CHECK: %[[Y:.*]] = bufferization.to_tensor %[[A]] restrict
// CHECK: return %[[Y]], %{{.*}}, %{{.*}}
func.func @main(%N: index {parc.kind = "symbol", parc.name = "N"}, %x: tensor<?xf32> {parc.shape = affine_map<()[N] -> (N)>}) -> tensor<?xf32> {
  %s = "parc.iterate"(%N) ({
  ^bb0(%k: index):
    %old = "parc.previous"(%x) {name = "x"} : (tensor<?xf32>) -> tensor<?xf32>
    %e = tensor.empty(%N) : tensor<?xf32>
    %square = linalg.square ins(%x : tensor<?xf32>) outs(%e : tensor<?xf32>) -> tensor<?xf32>
    %new = linalg.add ins(%old, %square : tensor<?xf32>, tensor<?xf32>) outs(%e : tensor<?xf32>) -> tensor<?xf32>
    %c0 = arith.constant 0 : index
    %c = tensor.extract %new[%c0] : tensor<?xf32>
    "parc.next"(%new) {name = "x"} : (tensor<?xf32>) -> ()
    "parc.change"(%c) : (f32) -> ()
  }, {
    %e = tensor.empty(%N) : tensor<?xf32>
    %exact = linalg.sqrt ins(%x : tensor<?xf32>) outs(%e : tensor<?xf32>) -> tensor<?xf32>
    "parc.next"(%exact) {name = "x"} : (tensor<?xf32>) -> ()
  }) {name = "roots", solver = "jacobi", tolerance = 1.0e-6 : f64} : (index) -> !parc.solution
  %y = "parc.iterated"(%s) {name = "x"} : (!parc.solution) -> tensor<?xf32>
  return %y : tensor<?xf32>
}

// -----

// Sweeps within sweeps: only the outer ones are counted.

// CHECK: func.func @main({{.*}}) -> (tensor<4xf64>, tensor<i64> {parc.kind = "statistic", parc.name = "outer.sweeps", parc.solver = "{{.*}}", parc.tolerance = {{.*}} : f64}, tensor<f64> {parc.kind = "statistic", parc.name = "outer.change", parc.solver = "{{.*}}", parc.tolerance = {{.*}} : f64})
// CHECK: scf.while
// CHECK:   scf.while
// CHECK-NOT: scf.if
func.func @main(%x: tensor<4xf64>, %n: index, %c: f64) -> tensor<4xf64> {
  %s = "parc.iterate"(%n) ({
  ^bb0(%k: index):
    %old = "parc.previous"(%x) {name = "x"} : (tensor<4xf64>) -> tensor<4xf64>
    %t = "parc.iterate"(%k) ({
    ^bb0(%j: index):
      %inner = "parc.previous"(%old) {name = "y"} : (tensor<4xf64>) -> tensor<4xf64>
      %next = linalg.exp ins(%inner : tensor<4xf64>) outs(%x : tensor<4xf64>) -> tensor<4xf64>
      "parc.next"(%next) {name = "y"} : (tensor<4xf64>) -> ()
      "parc.change"(%c) : (f64) -> ()
    }, {
    }) {name = "inner", solver = "jacobi", tolerance = 0.0 : f64} : (index) -> !parc.solution
    %new = "parc.iterated"(%t) {name = "y"} : (!parc.solution) -> tensor<4xf64>
    "parc.next"(%new) {name = "x"} : (tensor<4xf64>) -> ()
    "parc.change"(%c) : (f64) -> ()
  }, {
  }) {name = "outer", solver = "gs-jacobi", tolerance = 0.0 : f64} : (index) -> !parc.solution
  %y = "parc.iterated"(%s) {name = "x"} : (!parc.solution) -> tensor<4xf64>
  return %y : tensor<4xf64>
}
