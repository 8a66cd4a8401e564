// RUN: parc-opt %s | parc-opt | filecheck %s

// A schedule, and how threads share the work, are attributes that stay as they are.
// CHECK-DAG: #[[TILES:.*]] = affine_map<(d0)[s0] -> (d0 floordiv 8, d0 mod 8)>
// CHECK-DAG: #[[OWNER:.*]] = affine_map<(d0)[s0] -> (0)>
// CHECK: }) {domain = #{{.*}}, name = "copy", owner = #[[OWNER]], schedule = #[[TILES]]} : () -> ()
// CHECK: }) {distribute = "points", strategy = "wavefront", symbols = ["T"]}
func.func @main(%T: index, %x: tensor<?x8xf32>) -> tensor<?x8xf32> {
  %s = "parc.system"(%T) ({
    %h = "parc.unknown"() {name = "H", shape = affine_map<()[T] -> (T, 8)>} : () -> tensor<?x8xf32>
    "parc.equation"() ({
    ^bb0(%t: index):
      %xt = "parc.read"(%x) {at = affine_map<(t)[T] -> (t)>} : (tensor<?x8xf32>) -> tensor<8xf32>
      "parc.write"(%xt, %h) {at = affine_map<(t)[T] -> (t)>} : (tensor<8xf32>, tensor<?x8xf32>) -> ()
    }) {name = "copy", domain = affine_set<(t)[T] : (t >= 0, -t + T - 1 >= 0)>,
        schedule = affine_map<(t)[T] -> (t floordiv 8, t mod 8)>, owner = affine_map<(t)[T] -> (0)>} : () -> ()
  }) {symbols = ["T"], strategy = "wavefront", distribute = "points"} : (index) -> !parc.solution
  %H = "parc.array"(%s) {name = "H"} : (!parc.solution) -> tensor<?x8xf32>
  return %H : tensor<?x8xf32>
}
