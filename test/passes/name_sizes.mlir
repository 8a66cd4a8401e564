// RUN: parc-opt %s --parc-name-sizes --split-input-file --verify-diagnostics
// RUN: not parc-opt %s --parc-name-sizes --split-input-file 2>%t | filecheck %s

// An input without `parc.shape` gets a symbol for each dynamic size, and sizes are computed from symbols, not from tensors.

// CHECK: #[[SHAPE:map]] = affine_map<()[s0] -> (s0, 8)>
// CHECK: func.func @main(%[[N:[a-z0-9]+]]: index {parc.kind = "symbol", parc.name = "x_0"}, %{{.*}}: tensor<?x8xf32> {parc.name = "x", parc.shape = #[[SHAPE]]}) -> (tensor<?x8xf32> {parc.shape = #[[SHAPE]]})
// CHECK-NOT: tensor.dim
// CHECK: tensor.empty(%[[N]])
func.func @main(%x: tensor<?x8xf32> {parc.name = "x"}) -> tensor<?x8xf32> {
  %c0 = arith.constant 0 : index
  %n = tensor.dim %x, %c0 : tensor<?x8xf32>
  %e = tensor.empty(%n) : tensor<?x8xf32>
  %y = linalg.exp ins(%x : tensor<?x8xf32>) outs(%e : tensor<?x8xf32>) -> tensor<?x8xf32>
  return %y : tensor<?x8xf32>
}

// -----

// A result's size is a function of the symbols, here T + B.

// CHECK: #[[SUM:map]] = affine_map<()[s0, s1] -> (s0 + s1)>
// CHECK: -> (tensor<?xf32> {parc.shape = #[[SUM]]}) {
func.func @main(%T: index {parc.kind = "symbol", parc.name = "T"}, %B: index {parc.kind = "symbol", parc.name = "B"},
    %x: tensor<?xf32> {parc.shape = affine_map<()[T, B] -> (T)>}, %y: tensor<?xf32> {parc.shape = affine_map<()[T, B] -> (B)>}) -> tensor<?xf32> {
  %z = tensor.concat dim(0) %x, %y : (tensor<?xf32>, tensor<?xf32>) -> tensor<?xf32>
  return %z : tensor<?xf32>
}

// -----

// expected-error @below {{size 0 of result 0 is not an affine function of the symbols}}
func.func @main(%x: tensor<i32>) -> tensor<?xf32> {
  %i = tensor.extract %x[] : tensor<i32>
  %n = arith.index_cast %i : i32 to index
  %y = tensor.empty(%n) : tensor<?xf32>
  return %y : tensor<?xf32>
}

// -----

// expected-error @unknown {{the module has no function @main}}
func.func @other() {
  return
}
