// RUN: parc-opt %s --parc-name-contractions | filecheck %s

// A contraction is named, so that fusion leaves it whole, and reads what an operand was transposed from.

// CHECK: #[[LEFT:.*]] = affine_map<(d0, d1, d2) -> (d0, d2)>
// CHECK: #[[RIGHT:.*]] = affine_map<(d0, d1, d2) -> (d1, d2)>
// CHECK: #[[RESULT:.*]] = affine_map<(d0, d1, d2) -> (d0, d1)>
// CHECK: func.func @scores(%[[Q:.*]]: tensor<?x64xf32>, %[[K:.*]]: tensor<32x64xf32>
// CHECK: linalg.contract indexing_maps = [#[[LEFT]], #[[RIGHT]], #[[RESULT]]] ins(%[[Q]], %[[K]] :
func.func @scores(%q: tensor<?x64xf32>, %k: tensor<32x64xf32>, %start: tensor<?x32xf32>) -> tensor<?x32xf32> {
  %e = tensor.empty() : tensor<64x32xf32>
  %kt = linalg.transpose ins(%k : tensor<32x64xf32>) outs(%e : tensor<64x32xf32>) permutation = [1, 0]
  %s = linalg.matmul ins(%q, %kt : tensor<?x64xf32>, tensor<64x32xf32>) outs(%start : tensor<?x32xf32>) -> tensor<?x32xf32>
  return %s : tensor<?x32xf32>
}

// So are transposes of the result.

// CHECK: func.func @turned(%[[X:.*]]: tensor<?x64xf32>, %[[Y:.*]]: tensor<?x32xf32>)
// CHECK: %[[START:.*]] = linalg.fill ins(%{{.*}} : f32) outs(%{{.*}} : tensor<32x64xf32>)
// CHECK: %[[G:.*]] = linalg.contract indexing_maps = [{{.*}}] ins(%[[X]], %[[Y]] : {{.*}}) outs(%[[START]] :
// CHECK-NOT: linalg.transpose
// CHECK: return %[[G]]
func.func @turned(%x: tensor<?x64xf32>, %y: tensor<?x32xf32>) -> tensor<32x64xf32> {
  %zero = arith.constant 0.0 : f32
  %e = tensor.empty() : tensor<64x32xf32>
  %start = linalg.fill ins(%zero : f32) outs(%e : tensor<64x32xf32>) -> tensor<64x32xf32>
  %g = linalg.generic {indexing_maps = [affine_map<(t, m, n) -> (t, m)>, affine_map<(t, m, n) -> (t, n)>,
      affine_map<(t, m, n) -> (m, n)>], iterator_types = ["reduction", "parallel", "parallel"]}
      ins(%x, %y : tensor<?x64xf32>, tensor<?x32xf32>) outs(%start : tensor<64x32xf32>) {
  ^bb0(%a: f32, %b: f32, %c: f32):
    %p = arith.mulf %a, %b : f32
    %s = arith.addf %c, %p : f32
    linalg.yield %s : f32
  } -> tensor<64x32xf32>
  %turned = tensor.empty() : tensor<32x64xf32>
  %gt = linalg.transpose ins(%g : tensor<64x32xf32>) outs(%turned : tensor<32x64xf32>) permutation = [1, 0]
  return %gt : tensor<32x64xf32>
}

// What adds something else to the products is no contraction, and one of integers has no code of its own.

// CHECK: func.func @others
// CHECK: linalg.generic
// CHECK: linalg.matmul
func.func @others(%x: tensor<?x64xf32>, %w: tensor<64x64xf32>, %y: tensor<?x64xf32>, %i: tensor<64x64xi32>)
    -> (tensor<?x64xf32>, tensor<64x64xi32>) {
  %z = linalg.generic {indexing_maps = [affine_map<(m, n, k) -> (m, k)>, affine_map<(m, n, k) -> (k, n)>,
      affine_map<(m, n, k) -> (m, n)>], iterator_types = ["parallel", "parallel", "reduction"]}
      ins(%x, %w : tensor<?x64xf32>, tensor<64x64xf32>) outs(%y : tensor<?x64xf32>) {
  ^bb0(%a: f32, %b: f32, %c: f32):
    %p = arith.mulf %a, %b : f32
    %q = arith.addf %p, %b : f32
    %s = arith.addf %c, %q : f32
    linalg.yield %s : f32
  } -> tensor<?x64xf32>
  %j = linalg.matmul ins(%i, %i : tensor<64x64xi32>, tensor<64x64xi32>) outs(%i : tensor<64x64xi32>) -> tensor<64x64xi32>
  return %z, %j : tensor<?x64xf32>, tensor<64x64xi32>
}
