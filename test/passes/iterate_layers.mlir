// RUN: parc-opt %s --parc-iterate-layers="solver=jacobi" --canonicalize --cse | filecheck %s
// RUN: parc-opt %s --parc-iterate-layers="solver=jacobi limit=1" --canonicalize --cse | filecheck %s --check-prefix=LIMIT
// RUN: parc-opt %s --parc-iterate-layers="solver=gauss-seidel" | filecheck %s --check-prefix=SEQUENTIAL

// A residual network: what is added is what a layer gives; sums are computed from the last sweep's layers where they
// are needed, and so never older than these.

// CHECK-LABEL: func.func @main
// The first two layers are known: they are computed once.
// CHECK: %[[A:.*]] = linalg.matmul ins(%[[X:.*]], %{{.*}} : tensor<?x8xf32>, tensor<8x8xf32>)
// CHECK: %[[S1:.*]] = linalg.add ins(%[[X]], %[[A]]
// CHECK: linalg.matmul ins(%[[S1]]
// CHECK: %[[B:.*]] = linalg.tanh
// CHECK: "parc.iterate"(%c2) ({
// What needs the second one reads it as what the last sweep gave: else it would be known, too.
// CHECK: %[[B0:.*]] = "parc.previous"(%[[B]]) {name = "b"}
// CHECK: %[[C0:.*]] = "parc.previous"(%[[ZERO:.*]]) {name = "c"}
// CHECK: %[[D0:.*]] = "parc.previous"(%[[ZERO]]) {name = "d"}
// CHECK: %[[S2:.*]] = linalg.add ins(%[[S1]], %[[B0]]
// CHECK: %[[P:.*]] = linalg.matmul ins(%[[S2]]
// CHECK: %[[C:.*]] = linalg.tanh ins(%[[P]]
// CHECK: %[[S3:.*]] = linalg.add ins(%[[S2]], %[[C0]]
// CHECK: %[[D:.*]] = linalg.matmul ins(%[[S3]]
// CHECK: arith.maximumf
// CHECK: "parc.next"(%[[B]]) {name = "b"}
// CHECK: "parc.next"(%[[C]]) {name = "c"}
// CHECK: "parc.next"(%[[D]]) {name = "d"}
// CHECK: "parc.change"
// CHECK: }, {
// CHECK-NEXT: }) {arrays = ["b", "c", "d"], blocks = [
// CHECK-SAME: "a: 1 layer, computed before the sweeps"
// CHECK-SAME: "c: 1 layer, final after 1 sweep; needs a, b"
// CHECK-SAME: "d: 1 layer, final after 2 sweeps; needs a, b and 1 more"
// CHECK-SAME: "e: 1 layer, computed after the sweeps; needs a, b and 2 more"
// CHECK-SAME: bound = #{{.*}}, name = "layers", solver = "jacobi", start = "zeros"
// No other layer needs the last one.
// CHECK: %[[LASTC:.*]] = "parc.iterated"(%{{.*}}) {name = "c"}
// CHECK: %[[LASTD:.*]] = "parc.iterated"(%{{.*}}) {name = "d"}
// CHECK: %[[S3:.*]] = linalg.add ins(%{{.*}}, %[[LASTC]]
// CHECK: %[[S4:.*]] = linalg.add ins(%[[S3]], %[[LASTD]]
// CHECK: linalg.matmul ins(%[[S4]]
// CHECK: return

// With fewer sweeps than the bound, the layers are computed in order where they have not converged.
// LIMIT: %[[B:.*]] = linalg.tanh
// LIMIT: "parc.iterate"(%c1) ({
// LIMIT: "parc.change"
// LIMIT: }, {
// LIMIT: %[[C:.*]] = linalg.tanh
// LIMIT: %[[S3:.*]] = linalg.add ins(%{{.*}}, %[[C]]
// LIMIT: %[[D:.*]] = linalg.matmul ins(%[[S3]]
// LIMIT: "parc.next"(%[[B]]) {name = "b"}
// LIMIT: "parc.next"(%[[C]]) {name = "c"}
// LIMIT: "parc.next"(%[[D]]) {name = "d"}

// The program as it is goes through the layers one by one.
// SEQUENTIAL-NOT: parc.iterate
module attributes {parc.symbols = ["B"]} {
  func.func @main(%B: index {parc.kind = "symbol", parc.name = "B"},
      %x: tensor<?x8xf32> {parc.kind = "input", parc.name = "x", parc.shape = affine_map<()[B] -> (B, 8)>},
      %wa: tensor<8x8xf32> {parc.kind = "parameter", parc.name = "a.weight"},
      %wb: tensor<8x8xf32> {parc.kind = "parameter", parc.name = "b.weight"},
      %wc: tensor<8x8xf32> {parc.kind = "parameter", parc.name = "c.weight"},
      %wd: tensor<8x8xf32> {parc.kind = "parameter", parc.name = "d.weight"},
      %we: tensor<8x8xf32> {parc.kind = "parameter", parc.name = "e.weight"}) -> tensor<?x8xf32> {
    %c0 = arith.constant 0.0 : f32
    %e = tensor.empty(%B) : tensor<?x8xf32>
    %zero = linalg.fill ins(%c0 : f32) outs(%e : tensor<?x8xf32>) -> tensor<?x8xf32>
    %a = linalg.matmul ins(%x, %wa : tensor<?x8xf32>, tensor<8x8xf32>) outs(%zero : tensor<?x8xf32>) -> tensor<?x8xf32>
    %s1 = linalg.add ins(%x, %a : tensor<?x8xf32>, tensor<?x8xf32>) outs(%e : tensor<?x8xf32>) -> tensor<?x8xf32>
    %p = linalg.matmul ins(%s1, %wb : tensor<?x8xf32>, tensor<8x8xf32>) outs(%zero : tensor<?x8xf32>) -> tensor<?x8xf32>
    %b = linalg.tanh ins(%p : tensor<?x8xf32>) outs(%e : tensor<?x8xf32>) -> tensor<?x8xf32>
    %s2 = linalg.add ins(%s1, %b : tensor<?x8xf32>, tensor<?x8xf32>) outs(%e : tensor<?x8xf32>) -> tensor<?x8xf32>
    %q = linalg.matmul ins(%s2, %wc : tensor<?x8xf32>, tensor<8x8xf32>) outs(%zero : tensor<?x8xf32>) -> tensor<?x8xf32>
    %c = linalg.tanh ins(%q : tensor<?x8xf32>) outs(%e : tensor<?x8xf32>) -> tensor<?x8xf32>
    %s3 = linalg.add ins(%s2, %c : tensor<?x8xf32>, tensor<?x8xf32>) outs(%e : tensor<?x8xf32>) -> tensor<?x8xf32>
    %d = linalg.matmul ins(%s3, %wd : tensor<?x8xf32>, tensor<8x8xf32>) outs(%zero : tensor<?x8xf32>) -> tensor<?x8xf32>
    %s4 = linalg.add ins(%s3, %d : tensor<?x8xf32>, tensor<?x8xf32>) outs(%e : tensor<?x8xf32>) -> tensor<?x8xf32>
    %out = linalg.matmul ins(%s4, %we : tensor<?x8xf32>, tensor<8x8xf32>) outs(%zero : tensor<?x8xf32>) -> tensor<?x8xf32>
    return %out : tensor<?x8xf32>
  }
}
