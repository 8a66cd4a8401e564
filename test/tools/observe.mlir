// RUN: parc-opt %s --canonicalize --parc-name-sizes --mlir-print-ir-after-all -o %t 2>&1 | filecheck %s
// RUN: parc-opt %s --canonicalize --parc-name-sizes --mlir-timing -o %t 2>&1 | filecheck %s --check-prefix=TIMING

// The printed steps and the times are those of parc's passes and of upstream ones alike.

// CHECK: IR Dump After CanonicalizerPass
// CHECK: func.func @main(%{{.*}}: tensor<?xf32>)
// CHECK: IR Dump After NameSizes: name-sizes
// CHECK: func.func @main(%{{.*}}: index

// TIMING: Execution time report
// TIMING: CanonicalizerPass
// TIMING: NameSizes

func.func @main(%x: tensor<?xf32>) -> tensor<?xf32> {
  return %x : tensor<?xf32>
}
