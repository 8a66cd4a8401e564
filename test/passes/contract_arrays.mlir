// RUN: parc-opt %s --split-input-file --parc-schedule="strategy=layers distribute=units time_tile=8" --parc-contract-arrays --parc-verify-schedule | filecheck %s --check-prefix=LAYERS
// RUN: parc-opt %s --split-input-file --parc-schedule="strategy=wavefront distribute=units time_tile=4" --parc-contract-arrays --parc-verify-schedule | filecheck %s --check-prefix=TILED
// RUN: parc-opt %s --split-input-file --parc-schedule="strategy=wavefront distribute=points time_tile=4" --parc-contract-arrays --parc-verify-schedule | filecheck %s --check-prefix=POINTS
// RUN: parc-opt %s --split-input-file --parc-contract-arrays | filecheck %s --check-prefix=UNSCHEDULED

// Two layers in layer order. The second reads all states of the first, when these are complete, but its products are read
// in the tile that makes them: 8 places, and the first product of a tile (P[1], P[9]) is in the first of them, so that a
// tile's products stay one call. Of the second layer's states only the last is a result.
// LAYERS-DAG: #[[TILE:.*]] = affine_map<(d0)[s0, s1] -> ((d0 - 1) mod 8)>
// LAYERS-DAG: #[[TWO:.*]] = affine_map<(d0)[s0, s1] -> (d0 mod 2)>
// LAYERS-DAG: #[[LAST:.*]] = affine_map<()[s0, s1] -> (s0)>
// LAYERS: name = "H", shape = #{{[a-z0-9]*}}}
// LAYERS: name = "P", shape = #{{[a-z0-9]*}}, storage = #[[TILE]]}
// LAYERS: name = "G", shape = #{{[a-z0-9]*}}, storage = #[[TWO]]}
// LAYERS: "parc.array"(%{{.*}}) {at = #[[LAST]], name = "G"} : (!parc.solution) -> tensor<?x8xf32>
// LAYERS-NOT: tensor.extract_slice

// In a wavefront of tiles the second layer's products read a tile of states while the first of the next is computed: two
// tiles of states.
// TILED-DAG: #[[TILES:.*]] = affine_map<(d0)[s0, s1] -> ((d0 - 1) mod 8)>
// TILED-DAG: #[[TILE:.*]] = affine_map<(d0)[s0, s1] -> ((d0 - 1) mod 4)>
// TILED-DAG: #[[TWO:.*]] = affine_map<(d0)[s0, s1] -> (d0 mod 2)>
// TILED: name = "H", {{.*}}storage = #[[TILES]]}
// TILED: name = "P", {{.*}}storage = #[[TILE]]}
// TILED: name = "G", {{.*}}storage = #[[TWO]]}

// With a thread for each layer there is no barrier inside a wave.
// POINTS-DAG: #[[TILES:.*]] = affine_map<(d0)[s0, s1] -> ((d0 - 1) mod 8)>
// POINTS-DAG: #[[TILE:.*]] = affine_map<(d0)[s0, s1] -> ((d0 - 1) mod 4)>
// POINTS-DAG: #[[TWO:.*]] = affine_map<(d0)[s0, s1] -> (d0 mod 2)>
// POINTS: name = "H", {{.*}}storage = #[[TILES]]}
// POINTS: name = "P", {{.*}}storage = #[[TILE]]}
// POINTS: name = "G", {{.*}}storage = #[[TWO]]}

// Without a schedule nothing is known about what is in use together.
// UNSCHEDULED-NOT: storage =

#here = affine_map<(t)[T, B] -> (t)>
#next = affine_map<(t)[T, B] -> (t + 1)>
#start = affine_map<()[T, B] -> (0)>
#whole = affine_map<()[T, B] -> ()>
#once = affine_set<()[T, B] : (0 == 0)>
#steps = affine_set<(t)[T, B] : (t >= 0, T - 1 - t >= 0)>
#states = affine_map<()[T, B] -> (T + 1, B, 8)>
func.func @main(%T: index, %B: index, %x: tensor<?x?x8xf32>, %h0: tensor<?x8xf32>, %w: tensor<8x8xf32>) -> tensor<?x8xf32> {
  %s = "parc.system"(%T, %B) ({
    %h = "parc.unknown"() {name = "H", shape = #states} : () -> tensor<?x?x8xf32>
    %p = "parc.unknown"() {name = "P", shape = #states} : () -> tensor<?x?x8xf32>
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
      %z = arith.constant 0.0 : f32
      %e = tensor.empty(%B) : tensor<?x8xf32>
      %f = linalg.fill ins(%z : f32) outs(%e : tensor<?x8xf32>) -> tensor<?x8xf32>
      %c = linalg.matmul ins(%a, %w : tensor<?x8xf32>, tensor<8x8xf32>) outs(%f : tensor<?x8xf32>) -> tensor<?x8xf32>
      "parc.write"(%c, %p) {at = #next} : (tensor<?x8xf32>, tensor<?x?x8xf32>) -> ()
    }) {name = "product1", domain = #steps} : () -> ()
    "parc.equation"() ({
    ^bb0(%t: index):
      %a = "parc.read"(%p) {at = #next} : (tensor<?x?x8xf32>) -> tensor<?x8xf32>
      %b = "parc.read"(%g) {at = #here} : (tensor<?x?x8xf32>) -> tensor<?x8xf32>
      %c = linalg.matmul ins(%b, %w : tensor<?x8xf32>, tensor<8x8xf32>) outs(%a : tensor<?x8xf32>) -> tensor<?x8xf32>
      "parc.write"(%c, %g) {at = #next} : (tensor<?x8xf32>, tensor<?x?x8xf32>) -> ()
    }) {name = "cell1", domain = #steps} : () -> ()
  }) {symbols = ["T", "B"]} : (index, index) -> !parc.solution
  %unused = "parc.array"(%s) {name = "H"} : (!parc.solution) -> tensor<?x?x8xf32>
  %G = "parc.array"(%s) {name = "G"} : (!parc.solution) -> tensor<?x?x8xf32>
  %last = tensor.extract_slice %G[%T, 0, 0] [1, %B, 8] [1, 1, 1] : tensor<?x?x8xf32> to tensor<?x8xf32>
  return %last : tensor<?x8xf32>
}

// -----

// Backwards in time, tiles start at the last step: P[T - 8], P[T - 16] are first in their tiles. What is taken out whole,
// or in slices that are no single tiles, stays whole.
// LAYERS-DAG: #[[BACK:.*]] = affine_map<(d0)[s0, s1] -> ((d0 - s0) mod 8)>
// LAYERS: func.func @backwards
// LAYERS: name = "D", shape = #{{[a-z0-9]*}}}
// LAYERS: name = "P", shape = #{{[a-z0-9]*}}, storage = #[[BACK]]}
// LAYERS: "parc.array"(%{{.*}}) {name = "D"}
#here = affine_map<(t)[T, B] -> (t)>
#next = affine_map<(t)[T, B] -> (t + 1)>
#start = affine_map<()[T, B] -> (0)>
#whole = affine_map<()[T, B] -> ()>
#once = affine_set<()[T, B] : (0 == 0)>
#steps = affine_set<(t)[T, B] : (t >= 0, T - 1 - t >= 0)>
#states = affine_map<()[T, B] -> (T + 1, B, 8)>
func.func @backwards(%T: index, %B: index, %x: tensor<?x?x8xf32>, %h0: tensor<?x8xf32>, %w: tensor<8x8xf32>) -> tensor<?x?x8xf32> {
  %s = "parc.system"(%T, %B) ({
    %d = "parc.unknown"() {name = "D", shape = #states} : () -> tensor<?x?x8xf32>
    %p = "parc.unknown"() {name = "P", shape = affine_map<()[T, B] -> (T, B, 8)>} : () -> tensor<?x?x8xf32>
    "parc.boundary"(%d, %h0) {domain = #once, to = affine_map<()[T, B] -> (T)>, of = #whole} : (tensor<?x?x8xf32>, tensor<?x8xf32>) -> ()
    "parc.equation"() ({
    ^bb0(%t: index):
      %a = "parc.read"(%x) {at = #here} : (tensor<?x?x8xf32>) -> tensor<?x8xf32>
      %z = arith.constant 0.0 : f32
      %e = tensor.empty(%B) : tensor<?x8xf32>
      %f = linalg.fill ins(%z : f32) outs(%e : tensor<?x8xf32>) -> tensor<?x8xf32>
      %c = linalg.matmul ins(%a, %w : tensor<?x8xf32>, tensor<8x8xf32>) outs(%f : tensor<?x8xf32>) -> tensor<?x8xf32>
      "parc.write"(%c, %p) {at = #here} : (tensor<?x8xf32>, tensor<?x?x8xf32>) -> ()
    }) {name = "product", domain = #steps} : () -> ()
    "parc.equation"() ({
    ^bb0(%t: index):
      %a = "parc.read"(%p) {at = #here} : (tensor<?x?x8xf32>) -> tensor<?x8xf32>
      %b = "parc.read"(%d) {at = #next} : (tensor<?x?x8xf32>) -> tensor<?x8xf32>
      %c = linalg.matmul ins(%b, %w : tensor<?x8xf32>, tensor<8x8xf32>) outs(%a : tensor<?x8xf32>) -> tensor<?x8xf32>
      "parc.write"(%c, %d) {at = #here} : (tensor<?x8xf32>, tensor<?x?x8xf32>) -> ()
    }) {name = "cell", domain = #steps} : () -> ()
  }) {symbols = ["T", "B"]} : (index, index) -> !parc.solution
  %D = "parc.array"(%s) {name = "D"} : (!parc.solution) -> tensor<?x?x8xf32>
  %steps = tensor.extract_slice %D[0, 0, 0] [%T, %B, 8] [1, 1, 1] : tensor<?x?x8xf32> to tensor<?x?x8xf32>
  return %steps : tensor<?x?x8xf32>
}
