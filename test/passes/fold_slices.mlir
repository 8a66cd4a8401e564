// RUN: parc-opt %s --parc-fold-slices --canonicalize | filecheck %s

// The cotangent of the states but the first is read where it is, the zeros in front of it never; the sum of both ends
// reads one of them. The result is all of the array.

// CHECK-DAG: #[[HERE:.*]] = affine_map<(d0)[s0, s1] -> (d0)>
// CHECK: func.func @main(%[[T:.*]]: index, %[[B:.*]]: index, %[[G:.*]]: tensor<?x?x8xf32>
// CHECK: %[[PADDED:.*]] = tensor.insert_slice
// CHECK: "parc.read"(%[[G]]) {at = #[[HERE]]}
// CHECK: "parc.read"(%[[PADDED]]) {at = #[[HERE]]}
// CHECK: %[[D:.*]] = "parc.array"
// CHECK-NOT: tensor.extract_slice
// CHECK: return %[[D]]
#next = affine_map<(t)[T, B] -> (t + 1)>
#here = affine_map<(t)[T, B] -> (t)>
#ij = affine_map<(i, j) -> (i, j)>
func.func @main(%T: index, %B: index, %g: tensor<?x?x8xf32> {parc.shape = affine_map<()[T, B] -> (T, B, 8)>}) -> tensor<?x?x8xf32> {
  %c1 = arith.constant 1 : index
  %zero = arith.constant 0.0 : f32
  %T1 = arith.addi %T, %c1 : index
  %e = tensor.empty(%T1, %B) : tensor<?x?x8xf32>
  %zeros = linalg.fill ins(%zero : f32) outs(%e : tensor<?x?x8xf32>) -> tensor<?x?x8xf32>
  %padded = tensor.insert_slice %g into %zeros[1, 0, 0] [%T, %B, 8] [1, 1, 1] : tensor<?x?x8xf32> into tensor<?x?x8xf32>
  %tile = tensor.empty(%B) : tensor<?x8xf32>
  %s = "parc.system"(%T, %B) ({
    %d = "parc.unknown"() {name = "d", shape = affine_map<()[T, B] -> (T, B, 8)>} : () -> tensor<?x?x8xf32>
    "parc.equation"() ({
    ^bb0(%t: index):
      %one = "parc.read"(%padded) {at = #next} : (tensor<?x?x8xf32>) -> tensor<?x8xf32>
      %other = "parc.read"(%padded) {at = #here} : (tensor<?x?x8xf32>) -> tensor<?x8xf32>
      %sum = linalg.generic {indexing_maps = [#ij, #ij, #ij], iterator_types = ["parallel", "parallel"]} ins(%one, %other : tensor<?x8xf32>, tensor<?x8xf32>) outs(%tile : tensor<?x8xf32>) {
      ^bb0(%a: f32, %b: f32, %out: f32):
        %c = arith.addf %a, %b : f32
        linalg.yield %c : f32
      } -> tensor<?x8xf32>
      "parc.write"(%sum, %d) {at = #here} : (tensor<?x8xf32>, tensor<?x?x8xf32>) -> ()
    }) {name = "sum", domain = affine_set<(t)[T, B] : (t >= 0, T - 1 - t >= 0)>} : () -> ()
  }) {symbols = ["T", "B"]} : (index, index) -> !parc.solution
  %D = "parc.array"(%s) {name = "d"} : (!parc.solution) -> tensor<?x?x8xf32>
  %all = tensor.extract_slice %D[0, 0, 0] [%T, %B, 8] [1, 1, 1] : tensor<?x?x8xf32> to tensor<?x?x8xf32>
  return %all : tensor<?x?x8xf32>
}
