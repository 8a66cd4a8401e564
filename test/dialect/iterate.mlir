// RUN: parc-opt %s | filecheck %s

// Sweeps over one array, and what it is where they are too few.

func.func @main(%limit: index, %x: tensor<4xf32>) -> tensor<4xf32> {
  // CHECK: "parc.iterate"(%arg0) ({
  // CHECK-NEXT: ^bb0(%{{.*}}: index):
  // CHECK: "parc.previous"(%arg1) {name = "x"}
  // CHECK: "parc.next"(%{{.*}}) {name = "x"}
  // CHECK: "parc.change"
  // CHECK: }, {
  // CHECK: "parc.next"
  // CHECK: }) {name = "cell", solver = "jacobi", tolerance = {{.*}} : f64} : (index) -> !parc.solution
  // CHECK: "parc.iterated"(%{{.*}}) {name = "x"} : (!parc.solution) -> tensor<4xf32>
  %s = "parc.iterate"(%limit) ({
  ^bb0(%k: index):
    %old = "parc.previous"(%x) {name = "x"} : (tensor<4xf32>) -> tensor<4xf32>
    %change = arith.constant 0.0 : f32
    "parc.next"(%old) {name = "x"} : (tensor<4xf32>) -> ()
    "parc.change"(%change) : (f32) -> ()
  }, {
    "parc.next"(%x) {name = "x"} : (tensor<4xf32>) -> ()
  }) {name = "cell", solver = "jacobi", tolerance = 1.0e-6 : f64} : (index) -> !parc.solution
  %last = "parc.iterated"(%s) {name = "x"} : (!parc.solution) -> tensor<4xf32>
  return %last : tensor<4xf32>
}
