// RUN: parc-opt %s --emit=schedule --strategy=wavefront | filecheck %s
// RUN: parc-opt %s --emit=schedule --strategy=layers | filecheck %s --check-prefix=LAYERS
// RUN: parc-opt %s --parc-schedule="strategy=wavefront distribute=points" --parc-verify-schedule | filecheck %s --check-prefix=POINTS
// RUN: parc-opt %s --parc-schedule="strategy=wavefront distribute=points time_tile=4" --parc-verify-schedule | filecheck %s --check-prefix=TILES

// Layers as a dimension of one equation, so that both sizes are symbols: h[l, t] needs h[l - 1, t] and h[l, t - 1].

// CHECK: //   strategy: wavefront
// CHECK: //   work: L*T
// CHECK: //   span: L + T - 1
// CHECK: //   waves: L + T - 1
// CHECK: affine_map<(d0, d1)[s0, s1] -> (d0 + d1)>

// LAYERS: //   work: L*T

// The points of one wave have different l: workers take them in turn. Those of a tile of waves need each other.
// POINTS: #[[LAYER:.*]] = affine_map<(d0, d1)[s0, s1] -> (d0)>
// POINTS: name = "cell", owner = #[[LAYER]]
// TILES: #[[ONE:.*]] = affine_map<(d0, d1)[s0, s1] -> (0)>
// TILES: name = "cell", owner = #[[ONE]]

func.func @main(%L: index, %T: index, %x: tensor<?x8xf32>, %h0: tensor<?x8xf32>) -> tensor<?x?x8xf32> {
  %s = "parc.system"(%L, %T) ({
    %h = "parc.unknown"() {name = "H", shape = affine_map<()[L, T] -> (L + 1, T + 1, 8)>} : () -> tensor<?x?x8xf32>
    "parc.boundary"(%h, %x) {domain = affine_set<(t)[L, T] : (t >= 0, T - 1 - t >= 0)>,
      to = affine_map<(t)[L, T] -> (0, t + 1)>, of = affine_map<(t)[L, T] -> (t)>} : (tensor<?x?x8xf32>, tensor<?x8xf32>) -> ()
    "parc.boundary"(%h, %h0) {domain = affine_set<(l)[L, T] : (l >= 0, L - l >= 0)>,
      to = affine_map<(l)[L, T] -> (l, 0)>, of = affine_map<(l)[L, T] -> (l)>} : (tensor<?x?x8xf32>, tensor<?x8xf32>) -> ()
    "parc.equation"() ({
    ^bb0(%l: index, %t: index):
      %below = "parc.read"(%h) {at = affine_map<(l, t)[L, T] -> (l, t + 1)>} : (tensor<?x?x8xf32>) -> tensor<8xf32>
      %before = "parc.read"(%h) {at = affine_map<(l, t)[L, T] -> (l + 1, t)>} : (tensor<?x?x8xf32>) -> tensor<8xf32>
      %sum = arith.addf %below, %before : tensor<8xf32>
      "parc.write"(%sum, %h) {at = affine_map<(l, t)[L, T] -> (l + 1, t + 1)>} : (tensor<8xf32>, tensor<?x?x8xf32>) -> ()
    }) {name = "cell", domain = affine_set<(l, t)[L, T] : (l >= 0, L - 1 - l >= 0, t >= 0, T - 1 - t >= 0)>} : () -> ()
  }) {symbols = ["L", "T"]} : (index, index) -> !parc.solution
  %H = "parc.array"(%s) {name = "H"} : (!parc.solution) -> tensor<?x?x8xf32>
  return %H : tensor<?x?x8xf32>
}
