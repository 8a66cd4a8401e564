// RUN: parc-opt %s --parc-schedule="strategy=wavefront threads=4" --parc-verify-schedule | filecheck %s --check-prefix=WAVE
// RUN: parc-opt %s --parc-schedule="strategy=wavefront distribute=points time_tile=4" --parc-verify-schedule | filecheck %s --check-prefix=TILED
// RUN: parc-opt %s --parc-schedule="strategy=layers time_tile=8" --parc-verify-schedule | filecheck %s --check-prefix=LAYERS
// RUN: parc-opt %s --parc-schedule="strategy=layers time_tile=1" --parc-verify-schedule | filecheck %s --check-prefix=STEPS
// RUN: parc-opt %s --parc-schedule="strategy=rows time_tile=1" --parc-verify-schedule | filecheck %s --check-prefix=ROWS
// RUN: parc-opt %s --parc-schedule="strategy=sequential" --parc-verify-schedule | filecheck %s --check-prefix=PROGRAM

// Two layers; the second has its input product as an equation of its own. Every strategy is a time for each equation.

// The product of layer 1 is in the wave of the cell that it feeds: T + 1 waves, not more.
// WAVE-DAG: #[[FIRST:.*]] = affine_map<(d0)[s0, s1] -> (d0, 0)>
// WAVE-DAG: #[[PRODUCT:.*]] = affine_map<(d0)[s0, s1] -> (d0 + 1, 0)>
// WAVE-DAG: #[[SECOND:.*]] = affine_map<(d0)[s0, s1] -> (d0 + 1, 1)>
// WAVE: name = "cell0",{{.*}} schedule = #[[FIRST]]}
// WAVE: name = "product1",{{.*}} schedule = #[[PRODUCT]]}
// WAVE: name = "cell1",{{.*}} schedule = #[[SECOND]]}
// WAVE: strategy = "wavefront"

// A tile of the second layer waits for the same tile of the first; its products have one time, so they are one product.
// TILED-DAG: #[[FIRST:.*]] = affine_map<(d0)[s0, s1] -> (d0 floordiv 4, 0, d0 mod 4)>
// TILED-DAG: #[[PRODUCT:.*]] = affine_map<(d0)[s0, s1] -> (d0 floordiv 4 + 1, 0, 0)>
// TILED-DAG: #[[SECOND:.*]] = affine_map<(d0)[s0, s1] -> (d0 floordiv 4 + 1, 1, d0 mod 4)>
// TILED-DAG: #[[OWNER0:.*]] = affine_map<(d0)[s0, s1] -> (0)>
// TILED-DAG: #[[OWNER1:.*]] = affine_map<(d0)[s0, s1] -> (1)>
// TILED: name = "cell0", owner = #[[OWNER0]], schedule = #[[FIRST]]}
// TILED: name = "product1", owner = #[[OWNER1]], schedule = #[[PRODUCT]]}
// TILED: name = "cell1", owner = #[[OWNER1]], schedule = #[[SECOND]]}
// TILED: distribute = "points",{{.*}} strategy = "wavefront"

// LAYERS-DAG: #[[FIRST:.*]] = affine_map<(d0)[s0, s1] -> (0, d0 floordiv 8, 0, d0 mod 8)>
// LAYERS-DAG: #[[PRODUCT:.*]] = affine_map<(d0)[s0, s1] -> (1, d0 floordiv 8, 0, 0)>
// LAYERS-DAG: #[[SECOND:.*]] = affine_map<(d0)[s0, s1] -> (1, d0 floordiv 8, 1, d0 mod 8)>
// LAYERS: name = "cell0", schedule = #[[FIRST]]}
// LAYERS: name = "product1", schedule = #[[PRODUCT]]}
// LAYERS: name = "cell1", schedule = #[[SECOND]]}
// LAYERS: distribute = "units",{{.*}} strategy = "layers"

// STEPS-DAG: #[[FIRST:.*]] = affine_map<(d0)[s0, s1] -> (0, d0, 0)>
// STEPS-DAG: #[[PRODUCT:.*]] = affine_map<(d0)[s0, s1] -> (1, d0, 0)>
// STEPS-DAG: #[[SECOND:.*]] = affine_map<(d0)[s0, s1] -> (1, d0, 1)>
// STEPS: name = "cell0", schedule = #[[FIRST]]}
// STEPS: name = "product1", schedule = #[[PRODUCT]]}
// STEPS: name = "cell1", schedule = #[[SECOND]]}
// STEPS: distribute = "units",{{.*}} strategy = "layers"

// ROWS: distribute = "rows",{{.*}} strategy = "rows"
// PROGRAM: strategy = "sequential"

#here = affine_map<(t)[T, B] -> (t)>
#next = affine_map<(t)[T, B] -> (t + 1)>
#start = affine_map<()[T, B] -> (0)>
#whole = affine_map<()[T, B] -> ()>
#once = affine_set<()[T, B] : (0 == 0)>
#steps = affine_set<(t)[T, B] : (t >= 0, T - 1 - t >= 0)>
#states = affine_map<()[T, B] -> (T + 1, B, 8)>
func.func @main(%T: index, %B: index, %x: tensor<?x?x8xf32>, %h0: tensor<?x8xf32>, %w: tensor<8x8xf32>) -> tensor<?x?x8xf32> {
  %s = "parc.system"(%T, %B) ({
    %h = "parc.unknown"() {name = "H", shape = #states} : () -> tensor<?x?x8xf32>
    %p = "parc.unknown"() {name = "P", shape = affine_map<()[T, B] -> (T, B, 8)>} : () -> tensor<?x?x8xf32>
    %g = "parc.unknown"() {name = "G", shape = #states} : () -> tensor<?x?x8xf32>
    "parc.boundary"(%h, %h0) {domain = #once, to = #start, of = #whole} : (tensor<?x?x8xf32>, tensor<?x8xf32>) -> ()
    "parc.boundary"(%g, %h0) {domain = #once, to = #start, of = #whole} : (tensor<?x?x8xf32>, tensor<?x8xf32>) -> ()
    "parc.equation"() ({
    ^bb0(%t: index):
      %a = "parc.read"(%x) {at = #here} : (tensor<?x?x8xf32>) -> tensor<?x8xf32>
      %b = "parc.read"(%h) {at = #here} : (tensor<?x?x8xf32>) -> tensor<?x8xf32>
      %c = linalg.matmul ins(%b, %w : tensor<?x8xf32>, tensor<8x8xf32>) outs(%a : tensor<?x8xf32>) -> tensor<?x8xf32>
      "parc.write"(%c, %h) {at = #next} : (tensor<?x8xf32>, tensor<?x?x8xf32>) -> ()
    }) {name = "cell0", domain = #steps} : () -> ()
    "parc.equation"() ({
    ^bb0(%t: index):
      %a = "parc.read"(%h) {at = #next} : (tensor<?x?x8xf32>) -> tensor<?x8xf32>
      %e = tensor.empty(%B) : tensor<?x8xf32>
      %c = linalg.matmul ins(%a, %w : tensor<?x8xf32>, tensor<8x8xf32>) outs(%e : tensor<?x8xf32>) -> tensor<?x8xf32>
      "parc.write"(%c, %p) {at = #here} : (tensor<?x8xf32>, tensor<?x?x8xf32>) -> ()
    }) {name = "product1", domain = #steps} : () -> ()
    "parc.equation"() ({
    ^bb0(%t: index):
      %a = "parc.read"(%p) {at = #here} : (tensor<?x?x8xf32>) -> tensor<?x8xf32>
      %b = "parc.read"(%g) {at = #here} : (tensor<?x?x8xf32>) -> tensor<?x8xf32>
      %c = linalg.matmul ins(%b, %w : tensor<?x8xf32>, tensor<8x8xf32>) outs(%a : tensor<?x8xf32>) -> tensor<?x8xf32>
      "parc.write"(%c, %g) {at = #next} : (tensor<?x8xf32>, tensor<?x?x8xf32>) -> ()
    }) {name = "cell1", domain = #steps} : () -> ()
  }) {symbols = ["T", "B"]} : (index, index) -> !parc.solution
  %out = "parc.array"(%s) {name = "G"} : (!parc.solution) -> tensor<?x?x8xf32>
  return %out : tensor<?x?x8xf32>
}
