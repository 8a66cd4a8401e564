// RUN: parc-opt %s --parc-reverse-steps --split-input-file | filecheck %s

// A coupled pair: a[t+1] = a[t] + tanh(b[t]), b[t+1] = b[t] - a[t+1]. From the last states, b comes first; it needs a at
// t + 1 alone, so that one equation computes both. What is saved stays a result, and so do the states: the first ones.

// CHECK-DAG: #[[END:map[0-9]*]] = affine_map<()[s0, s1] -> (s0)>
// CHECK-DAG: #[[HERE:map[0-9]*]] = affine_map<(d0)[s0, s1] -> (d0)>
// CHECK-DAG: #[[NEXT:map[0-9]*]] = affine_map<(d0)[s0, s1] -> (d0 + 1)>
// CHECK: func.func @main
// CHECK-SAME: %[[A0:[a-z0-9]+]]: tensor<?x8xf32> {parc.kind = "input", parc.name = "state0"
// CHECK-SAME: %[[B0:[a-z0-9]+]]: tensor<?x8xf32> {parc.kind = "input", parc.name = "state1"
// CHECK-SAME: -> (tensor<?x8xf32> {parc.kind = "state"}, tensor<?x8xf32> {parc.kind = "state"}, tensor<?x?x8xf32> {parc.kind = "saved"})
// CHECK: %[[A:.*]] = "parc.unknown"() {name = "A"
// CHECK: %[[B:.*]] = "parc.unknown"() {name = "B"
// CHECK: "parc.boundary"(%[[A]], %[[A0]]) {{{.*}}to = #[[END]]}
// CHECK: "parc.boundary"(%[[B]], %[[B0]]) {{{.*}}to = #[[END]]}
// CHECK: "parc.equation"
// CHECK-DAG: %[[NEWA:.*]] = "parc.read"(%[[A]]) {at = #[[NEXT]]}
// CHECK-DAG: %[[NEWB:.*]] = "parc.read"(%[[B]]) {at = #[[NEXT]]}
// CHECK: %[[OLDB:.*]] = linalg.generic {{.*}} ins(%[[NEWB]], %[[NEWA]]
// CHECK: arith.addf
// CHECK: "parc.write"(%[[OLDB]], %[[B]]) {at = #[[HERE]]}
// CHECK: %[[F:.*]] = linalg.generic {{.*}} ins(%[[OLDB]]
// CHECK: math.tanh
// CHECK: %[[OLDA:.*]] = linalg.generic {{.*}} ins(%[[NEWA]], %[[F]]
// CHECK: arith.subf
// CHECK: "parc.write"(%[[OLDA]], %[[A]]) {at = #[[HERE]]}
// CHECK: name = "cell"
// CHECK: return

#here = affine_map<(t)[T, B] -> (t)>
#next = affine_map<(t)[T, B] -> (t + 1)>
#first = affine_map<()[T, B] -> (0)>
#all = affine_map<()[T, B] -> ()>
#always = affine_set<()[T, B] : (0 == 0)>
#longer = affine_map<()[T, B] -> (T + 1, B, 8)>
#state = affine_map<()[T, B] -> (B, 8)>
#id = affine_map<(d0, d1) -> (d0, d1)>
func.func @main(%T: index {parc.kind = "symbol", parc.name = "T"}, %B: index {parc.kind = "symbol", parc.name = "B"},
    %a0: tensor<?x8xf32> {parc.kind = "input", parc.name = "state0", parc.shape = #state},
    %b0: tensor<?x8xf32> {parc.kind = "input", parc.name = "state1", parc.shape = #state})
    -> (tensor<?x?x8xf32>, tensor<?x8xf32> {parc.kind = "state"}, tensor<?x8xf32> {parc.kind = "state"},
        tensor<?x?x8xf32> {parc.kind = "saved"}) {
  %e = tensor.empty(%B) : tensor<?x8xf32>
  %s = "parc.system"(%T, %B) ({
    %a = "parc.unknown"() {name = "A", shape = #longer} : () -> tensor<?x?x8xf32>
    %b = "parc.unknown"() {name = "B", shape = #longer} : () -> tensor<?x?x8xf32>
    "parc.boundary"(%a, %a0) {domain = #always, to = #first, of = #all} : (tensor<?x?x8xf32>, tensor<?x8xf32>) -> ()
    "parc.boundary"(%b, %b0) {domain = #always, to = #first, of = #all} : (tensor<?x?x8xf32>, tensor<?x8xf32>) -> ()
    "parc.equation"() ({
    ^bb0(%t: index):
      %at = "parc.read"(%a) {at = #here} : (tensor<?x?x8xf32>) -> tensor<?x8xf32>
      %bt = "parc.read"(%b) {at = #here} : (tensor<?x?x8xf32>) -> tensor<?x8xf32>
      %f = linalg.generic {indexing_maps = [#id, #id], iterator_types = ["parallel", "parallel"]}
          ins(%bt : tensor<?x8xf32>) outs(%e : tensor<?x8xf32>) {
      ^bb0(%x: f32, %out: f32):
        %y = math.tanh %x : f32
        linalg.yield %y : f32
      } -> tensor<?x8xf32>
      %an = linalg.generic {indexing_maps = [#id, #id, #id], iterator_types = ["parallel", "parallel"]}
          ins(%at, %f : tensor<?x8xf32>, tensor<?x8xf32>) outs(%e : tensor<?x8xf32>) {
      ^bb0(%x: f32, %y: f32, %out: f32):
        %z = arith.addf %x, %y : f32
        linalg.yield %z : f32
      } -> tensor<?x8xf32>
      %bn = linalg.generic {indexing_maps = [#id, #id, #id], iterator_types = ["parallel", "parallel"]}
          ins(%bt, %an : tensor<?x8xf32>, tensor<?x8xf32>) outs(%e : tensor<?x8xf32>) {
      ^bb0(%x: f32, %y: f32, %out: f32):
        %z = arith.subf %x, %y : f32
        linalg.yield %z : f32
      } -> tensor<?x8xf32>
      "parc.write"(%an, %a) {at = #next} : (tensor<?x8xf32>, tensor<?x?x8xf32>) -> ()
      "parc.write"(%bn, %b) {at = #next} : (tensor<?x8xf32>, tensor<?x?x8xf32>) -> ()
    }) {name = "cell", domain = affine_set<(t)[T, B] : (t >= 0, T - 1 - t >= 0)>} : () -> ()
  }) {symbols = ["T", "B"]} : (index, index) -> !parc.solution
  %A = "parc.array"(%s) {name = "A"} : (!parc.solution) -> tensor<?x?x8xf32>
  %B_ = "parc.array"(%s) {name = "B"} : (!parc.solution) -> tensor<?x?x8xf32>
  %y = tensor.extract_slice %B_[1, 0, 0] [%T, %B, 8] [1, 1, 1] : tensor<?x?x8xf32> to tensor<?x?x8xf32>
  %last_a = tensor.extract_slice %A[%T, 0, 0] [1, %B, 8] [1, 1, 1] : tensor<?x?x8xf32> to tensor<?x8xf32>
  %last_b = tensor.extract_slice %B_[%T, 0, 0] [1, %B, 8] [1, 1, 1] : tensor<?x?x8xf32> to tensor<?x8xf32>
  return %y, %last_a, %last_b, %A : tensor<?x?x8xf32>, tensor<?x8xf32>, tensor<?x8xf32>, tensor<?x?x8xf32>
}
