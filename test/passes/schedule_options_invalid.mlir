// RUN: not parc-opt %s --parc-schedule="strategy=fastest" 2>&1 | filecheck %s --check-prefix=STRATEGY
// RUN: not parc-opt %s --parc-schedule="distribute=columns" 2>&1 | filecheck %s --check-prefix=DISTRIBUTE
// RUN: not parc-opt %s --parc-schedule="time_tile=-1" 2>&1 | filecheck %s --check-prefix=TILE
// RUN: not parc-opt %s --parc-schedule="sizes=T" 2>&1 | filecheck %s --check-prefix=SIZES
// RUN: not parc-opt %s --parc-schedule="strategy=rows" 2>&1 | filecheck %s --check-prefix=ROWS

// STRATEGY: error: there is no strategy "fastest" (known: auto, sequential, layers, rows, wavefront, scan, recursive-doubling, cyclic-reduction, nested-scan, jacobi, gauss-seidel, jacobi-gs, gs-jacobi, newton, quasi-newton)
// DISTRIBUTE: error: there is no distribute "columns" (known: units, points, rows)
// TILE: error: the time tile and the number of threads cannot be negative
// SIZES: error: sizes are written like T=128,B=16, not 'T'
// ROWS: error: the rows of this system cannot be shared without barriers: all rows of second read the same of G

func.func @main(%T: index, %x: tensor<?x8xf32>) {
  %s = "parc.system"(%T) ({
    %g = "parc.unknown"() {name = "G", shape = affine_map<()[T] -> (T, 8)>} : () -> tensor<?x8xf32>
    %h = "parc.unknown"() {name = "H", shape = affine_map<()[T] -> (T, 4, 8)>} : () -> tensor<?x4x8xf32>
    "parc.equation"() ({
    ^bb0(%t: index):
      %a = "parc.read"(%x) {at = affine_map<(t)[T] -> (t)>} : (tensor<?x8xf32>) -> tensor<8xf32>
      %b = arith.addf %a, %a : tensor<8xf32>
      "parc.write"(%b, %g) {at = affine_map<(t)[T] -> (t)>} : (tensor<8xf32>, tensor<?x8xf32>) -> ()
    }) {name = "first", domain = affine_set<(t)[T] : (t >= 0, T - 1 - t >= 0)>} : () -> ()
    "parc.equation"() ({
    ^bb0(%t: index):
      %a = "parc.read"(%g) {at = affine_map<(t)[T] -> (t)>} : (tensor<?x8xf32>) -> tensor<8xf32>
      %e = tensor.empty() : tensor<4x8xf32>
      %b = linalg.broadcast ins(%a : tensor<8xf32>) outs(%e : tensor<4x8xf32>) dimensions = [0]
      "parc.write"(%b, %h) {at = affine_map<(t)[T] -> (t)>} : (tensor<4x8xf32>, tensor<?x4x8xf32>) -> ()
    }) {name = "second", domain = affine_set<(t)[T] : (t >= 0, T - 1 - t >= 0)>} : () -> ()
  }) {symbols = ["T"]} : (index) -> !parc.solution
  return
}
