// RUN: parc-opt %s --split-input-file --verify-diagnostics --parc-instantiate-sizes

module attributes {parc.symbols = ["T"]} {
  // expected-error @below {{the parc.shape of argument 0 does not fit its type tensor<?x8xf32>}}
  func.func @main(%x: tensor<?x8xf32> {parc.shape = affine_map<()[T] -> (T, 9)>}) {
    return
  }
}

// -----

module attributes {parc.symbols = ["T"]} {
  // expected-error @below {{argument 1 has dynamic sizes but no parc.shape}}
  func.func @main(%x: tensor<?x8xf32> {parc.shape = affine_map<()[T] -> (T, 8)>}, %y: tensor<?xf32>) {
    return
  }
}

// -----

module attributes {parc.symbols = ["T"]} {
  // expected-error @below {{the shape of result 0 is not known from the sizes of the arguments}}
  func.func @main(%x: tensor<?xindex> {parc.shape = affine_map<()[T] -> (T)>}) -> tensor<?xf32> {
    %c0 = arith.constant 0 : index
    %n = tensor.extract %x[%c0] : tensor<?xindex>
    %y = tensor.empty(%n) : tensor<?xf32>
    return %y : tensor<?xf32>
  }
}
