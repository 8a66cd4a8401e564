// RUN: parc-opt %s --split-input-file --parc-instantiate-sizes | filecheck %s

// One trace at a base, one with each symbol one larger, one held out; loops unrolled, all shapes static.

// CHECK: module attributes {parc.symbols = ["T", "B"]}
// CHECK: func.func @main_0(%{{.*}}: tensor<5x5x8xf32> {parc.name = "x"}, %{{.*}}: tensor<8xf32>) -> (tensor<5x5x8xf32>, tensor<5x8xf32>)
// CHECK-SAME: parc.trace = [5, 5]
// CHECK-COUNT-5: linalg.add
// CHECK-NOT: linalg.add
// CHECK: func.func @main_1({{.*}}) -> (tensor<6x5x8xf32>, tensor<5x8xf32>)
// CHECK-SAME: parc.trace = [6, 5]
// CHECK-COUNT-6: linalg.add
// CHECK: func.func @main_2({{.*}}) -> (tensor<5x6x8xf32>, tensor<6x8xf32>)
// CHECK-SAME: parc.trace = [5, 6]
// CHECK-COUNT-5: linalg.add
// CHECK: func.func @main_3({{.*}}) -> (tensor<8x8x8xf32>, tensor<8x8xf32>)
// CHECK-SAME: parc.trace = [8, 8]
// CHECK-COUNT-8: linalg.add
// CHECK-NOT: ?x
module attributes {parc.symbols = ["T", "B"]} {
  func.func @main(%x: tensor<?x?x8xf32> {parc.name = "x", parc.shape = affine_map<()[T, B] -> (T, B, 8)>},
                  %w: tensor<8xf32>) -> (tensor<?x?x8xf32>, tensor<?x8xf32>) {
    %c0 = arith.constant 0 : index
    %c1 = arith.constant 1 : index
    %zero = arith.constant 0.0 : f32
    %T = tensor.dim %x, %c0 : tensor<?x?x8xf32>
    %B = tensor.dim %x, %c1 : tensor<?x?x8xf32>
    %e = tensor.empty(%B) : tensor<?x8xf32>
    %h0 = linalg.fill ins(%zero : f32) outs(%e : tensor<?x8xf32>) -> tensor<?x8xf32>
    %y0 = tensor.empty(%T, %B) : tensor<?x?x8xf32>
    %h, %y = scf.for %t = %c0 to %T step %c1 iter_args(%s = %h0, %ys = %y0) -> (tensor<?x8xf32>, tensor<?x?x8xf32>) {
      %xt = tensor.extract_slice %x[%t, 0, 0] [1, %B, 8] [1, 1, 1] : tensor<?x?x8xf32> to tensor<?x8xf32>
      %n = linalg.add ins(%s, %xt : tensor<?x8xf32>, tensor<?x8xf32>) outs(%e : tensor<?x8xf32>) -> tensor<?x8xf32>
      %more = tensor.insert_slice %n into %ys[%t, 0, 0] [1, %B, 8] [1, 1, 1] : tensor<?x8xf32> into tensor<?x?x8xf32>
      scf.yield %n, %more : tensor<?x8xf32>, tensor<?x?x8xf32>
    }
    return %y, %h : tensor<?x?x8xf32>, tensor<?x8xf32>
  }
}

// -----

// Sizes that depend on the symbols in other ways.

// CHECK: func.func @main_0(%{{.*}}: tensor<11xf32>, %{{.*}}: tensor<2x3xf32>) -> tensor<11xf32>
// CHECK: func.func @main_1(%{{.*}}: tensor<13xf32>, %{{.*}}: tensor<3x4xf32>) -> tensor<13xf32>
// CHECK: func.func @main_2(%{{.*}}: tensor<17xf32>, %{{.*}}: tensor<4x5xf32>) -> tensor<17xf32>
module attributes {parc.symbols = ["N"]} {
  func.func @main(%x: tensor<?xf32> {parc.shape = affine_map<()[N] -> (N * 2 + 1)>},
                  %y: tensor<?x?xf32> {parc.shape = affine_map<()[N] -> (N floordiv 2, (N + 1) ceildiv 2)>})
      -> tensor<?xf32> {
    %z = linalg.exp ins(%x : tensor<?xf32>) outs(%x : tensor<?xf32>) -> tensor<?xf32>
    return %z : tensor<?xf32>
  }
}

// -----

// Without names for its sizes, or with the sizes as arguments, a function stays as it is.

// CHECK: func.func @main(%{{.*}}: tensor<?xf32>)
func.func @main(%x: tensor<?xf32>) -> tensor<?xf32> {
  return %x : tensor<?xf32>
}

// -----

// CHECK: func.func @main(%{{.*}}: index {{.*}}, %{{.*}}: tensor<?xf32>
module attributes {parc.symbols = ["N"]} {
  func.func @main(%N: index {parc.kind = "symbol", parc.name = "N"},
                  %x: tensor<?xf32> {parc.shape = affine_map<()[N] -> (N)>}) -> tensor<?xf32> {
    return %x : tensor<?xf32>
  }
}
