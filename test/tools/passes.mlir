// RUN: parc-opt %s --parc-name-sizes | filecheck %s
// RUN: parc-opt %s --pass-pipeline="builtin.module(name-sizes)" | filecheck %s
// RUN: not parc-opt %s --parc-name-sizes --symbol-dce=x=1 2>&1 | filecheck %s --check-prefix=OPTION
// RUN: parc-opt %s --symbol-dce --parc-name-sizes | filecheck %s --check-prefix=BOTH
// RUN: not parc-opt %s --parc-name-sizes=x=1 2>&1 | filecheck %s --check-prefix=OURS
// RUN: not parc-opt %s --pass-pipeline="func.func(name-sizes)" 2>&1 | filecheck %s --check-prefix=NESTED
// RUN: not parc-opt %s --parc-nonsense 2>&1 | filecheck %s --check-prefix=UNKNOWN
// RUN: not parc-opt %s --name-size 2>&1 | filecheck %s --check-prefix=NEAR

// Passes run in the order given; parc's own and upstream ones mix.

// CHECK: func.func private @unused
// CHECK: func.func @main(%{{.*}}: index {parc.kind = "symbol", parc.name = "arg0_0"}
// BOTH-NOT: @unused
// BOTH: func.func @main(%{{.*}}: index {parc.kind = "symbol", parc.name = "arg0_0"}
// OPTION: parc-opt: error: in the step 'symbol-dce{x=1}': <Pass-Options-Parser>: no such option x
// OURS: parc-opt: error: pass name-sizes has no option 'x' (options: none)
// NESTED: parc-opt: error: 'name-sizes' works on the whole module: take it out of 'func.func(name-sizes)'
// UNKNOWN: parc-opt: error: parc has no pass 'nonsense'; --help lists them
// NEAR: 'name-size' does not refer to a registered pass or pass pipeline (did you mean 'name-sizes'?)

func.func private @unused()

func.func @main(%x: tensor<?x8xf32>) -> tensor<?x8xf32> {
  return %x : tensor<?x8xf32>
}
