// RUN: parc-opt %s --emit=schedule | filecheck %s
// RUN: parc-opt %s --parc-schedule | parc-opt --parc-verify-schedule

// Each row starts where the row before ended: the time of a step would be i * N + j, a product of sizes. Such a system
// has no wavefront of affine waves; isl's scheduler orders it by rows, the carry first.

// CHECK: //   strategy: sequential, distribute: units
// CHECK: //   work: M*N - 1
// CHECK-DAG: affine_map<(d0, d1)[s0, s1] -> (d0, 1, d1)>
// CHECK-DAG: affine_map<(d0)[s0, s1] -> (d0, 0, 0)>

func.func @main(%M: index, %N: index, %h0: tensor<8xf32>) -> tensor<?x?x8xf32> {
  %s = "parc.system"(%M, %N) ({
    %h = "parc.unknown"() {name = "H", shape = affine_map<()[M, N] -> (M, N, 8)>} : () -> tensor<?x?x8xf32>
    "parc.boundary"(%h, %h0) {domain = affine_set<()[M, N] : (M - 1 >= 0, N - 1 >= 0)>,
      to = affine_map<()[M, N] -> (0, 0)>, of = affine_map<()[M, N] -> ()>} : (tensor<?x?x8xf32>, tensor<8xf32>) -> ()
    "parc.equation"() ({
    ^bb0(%i: index, %j: index):
      %a = "parc.read"(%h) {at = affine_map<(i, j)[M, N] -> (i, j - 1)>} : (tensor<?x?x8xf32>) -> tensor<8xf32>
      %b = arith.addf %a, %a : tensor<8xf32>
      "parc.write"(%b, %h) {at = affine_map<(i, j)[M, N] -> (i, j)>} : (tensor<8xf32>, tensor<?x?x8xf32>) -> ()
    }) {name = "step", domain = affine_set<(i, j)[M, N] : (i >= 0, M - 1 - i >= 0, j - 1 >= 0, N - 1 - j >= 0)>} : () -> ()
    "parc.equation"() ({
    ^bb0(%i: index):
      %a = "parc.read"(%h) {at = affine_map<(i)[M, N] -> (i - 1, N - 1)>} : (tensor<?x?x8xf32>) -> tensor<8xf32>
      "parc.write"(%a, %h) {at = affine_map<(i)[M, N] -> (i, 0)>} : (tensor<8xf32>, tensor<?x?x8xf32>) -> ()
    }) {name = "carry", domain = affine_set<(i)[M, N] : (i - 1 >= 0, M - 1 - i >= 0, N - 1 >= 0)>} : () -> ()
  }) {symbols = ["M", "N"]} : (index, index) -> !parc.solution
  %H = "parc.array"(%s) {name = "H"} : (!parc.solution) -> tensor<?x?x8xf32>
  return %H : tensor<?x?x8xf32>
}
