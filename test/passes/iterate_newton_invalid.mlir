// RUN: parc-opt %s --parc-iterate="solver=quasi-newton" --verify-diagnostics

// No equation needs another instance: there is no state to solve for.

#here = affine_map<(t)[T] -> (t)>
func.func @main(%T: index, %x: tensor<?x8xf32>) -> tensor<?x8xf32> {
  // expected-error @+1 {{there is no recurrence to solve with quasi-newton: choose the strategy auto, or jacobi for many layers}}
  %s = "parc.system"(%T) ({
    %y = "parc.unknown"() {name = "Y", shape = affine_map<()[T] -> (T, 8)>} : () -> tensor<?x8xf32>
    "parc.equation"() ({
    ^bb0(%t: index):
      %xt = "parc.read"(%x) {at = #here} : (tensor<?x8xf32>) -> tensor<8xf32>
      %new = arith.addf %xt, %xt : tensor<8xf32>
      "parc.write"(%new, %y) {at = #here} : (tensor<8xf32>, tensor<?x8xf32>) -> ()
    }) {name = "double", domain = affine_set<(t)[T] : (t >= 0, T - 1 - t >= 0)>} : () -> ()
  }) {symbols = ["T"]} : (index) -> !parc.solution
  %Y = "parc.array"(%s) {name = "Y"} : (!parc.solution) -> tensor<?x8xf32>
  return %Y : tensor<?x8xf32>
}
