// RUN: parc-opt %s --split-input-file --verify-diagnostics --parc-unroll-loops

func.func @long(%x: tensor<8xf32>) -> tensor<8xf32> {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %many = arith.constant 100000 : index
  // expected-error @below {{a loop of 100000 steps is too long to unroll (at most 4096)}}
  %y = scf.for %i = %c0 to %many step %c1 iter_args(%a = %x) -> tensor<8xf32> {
    scf.yield %a : tensor<8xf32>
  }
  return %y : tensor<8xf32>
}

// -----

func.func @endless(%x: tensor<8xf32>) -> tensor<8xf32> {
  %c0 = arith.constant 0 : index
  %c5 = arith.constant 5 : index
  // expected-error @below {{a loop with step 0 does not end}}
  %y = scf.for %i = %c0 to %c5 step %c0 iter_args(%a = %x) -> tensor<8xf32> {
    scf.yield %a : tensor<8xf32>
  }
  return %y : tensor<8xf32>
}
