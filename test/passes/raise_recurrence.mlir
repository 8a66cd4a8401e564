// RUN: parc-opt %s --parc-raise-recurrence --split-input-file --verify-diagnostics
// RUN: not parc-opt %s --parc-raise --split-input-file 2>%t | filecheck %s

// The same loop, traced at three lengths, is one equation over all lengths; what the loop returns is its last step.

// CHECK: func.func @main(%[[T:[a-z0-9]+]]: index {parc.kind = "symbol", parc.name = "T"}, %[[X:[a-z0-9]+]]: tensor<?x8xf32> {parc.kind = "input", parc.name = "x"
// CHECK: "parc.system"(%[[T]]) ({
// CHECK: "parc.unknown"() {name = "{{.*}}", shape = #{{.*}}} : () -> tensor<?x8xf32>
// CHECK: "parc.boundary"
// CHECK: "parc.equation"() ({
// CHECK: "parc.read"(%[[X]])
// CHECK: math.tanh
// CHECK: "parc.write"
// CHECK: }) {domain = #{{.*}}, name = "cell0"}
// CHECK: "parc.array"
// CHECK-NOT: @main_0
module attributes {parc.symbols = ["T"]} {
func.func @main_0(%x: tensor<4x8xf32> {parc.kind = "input", parc.name = "x"}, %h0: tensor<8xf32> {parc.kind = "input", parc.name = "h0"})
    -> (tensor<8xf32> {parc.name = "h"}) attributes {parc.trace = [4]} {
  %x0 = tensor.extract_slice %x[0, 0] [1, 8] [1, 1] : tensor<4x8xf32> to tensor<8xf32>
  %s0 = arith.addf %x0, %h0 : tensor<8xf32>
  %n0 = math.tanh %s0 : tensor<8xf32>
  %x1 = tensor.extract_slice %x[1, 0] [1, 8] [1, 1] : tensor<4x8xf32> to tensor<8xf32>
  %s1 = arith.addf %x1, %n0 : tensor<8xf32>
  %n1 = math.tanh %s1 : tensor<8xf32>
  %x2 = tensor.extract_slice %x[2, 0] [1, 8] [1, 1] : tensor<4x8xf32> to tensor<8xf32>
  %s2 = arith.addf %x2, %n1 : tensor<8xf32>
  %n2 = math.tanh %s2 : tensor<8xf32>
  %x3 = tensor.extract_slice %x[3, 0] [1, 8] [1, 1] : tensor<4x8xf32> to tensor<8xf32>
  %s3 = arith.addf %x3, %n2 : tensor<8xf32>
  %n3 = math.tanh %s3 : tensor<8xf32>
  return %n3 : tensor<8xf32>
}
func.func @main_1(%x: tensor<5x8xf32> {parc.kind = "input", parc.name = "x"}, %h0: tensor<8xf32> {parc.kind = "input", parc.name = "h0"})
    -> (tensor<8xf32> {parc.name = "h"}) attributes {parc.trace = [5]} {
  %x0 = tensor.extract_slice %x[0, 0] [1, 8] [1, 1] : tensor<5x8xf32> to tensor<8xf32>
  %s0 = arith.addf %x0, %h0 : tensor<8xf32>
  %n0 = math.tanh %s0 : tensor<8xf32>
  %x1 = tensor.extract_slice %x[1, 0] [1, 8] [1, 1] : tensor<5x8xf32> to tensor<8xf32>
  %s1 = arith.addf %x1, %n0 : tensor<8xf32>
  %n1 = math.tanh %s1 : tensor<8xf32>
  %x2 = tensor.extract_slice %x[2, 0] [1, 8] [1, 1] : tensor<5x8xf32> to tensor<8xf32>
  %s2 = arith.addf %x2, %n1 : tensor<8xf32>
  %n2 = math.tanh %s2 : tensor<8xf32>
  %x3 = tensor.extract_slice %x[3, 0] [1, 8] [1, 1] : tensor<5x8xf32> to tensor<8xf32>
  %s3 = arith.addf %x3, %n2 : tensor<8xf32>
  %n3 = math.tanh %s3 : tensor<8xf32>
  %x4 = tensor.extract_slice %x[4, 0] [1, 8] [1, 1] : tensor<5x8xf32> to tensor<8xf32>
  %s4 = arith.addf %x4, %n3 : tensor<8xf32>
  %n4 = math.tanh %s4 : tensor<8xf32>
  return %n4 : tensor<8xf32>
}
func.func @main_2(%x: tensor<7x8xf32> {parc.kind = "input", parc.name = "x"}, %h0: tensor<8xf32> {parc.kind = "input", parc.name = "h0"})
    -> (tensor<8xf32> {parc.name = "h"}) attributes {parc.trace = [7]} {
  %x0 = tensor.extract_slice %x[0, 0] [1, 8] [1, 1] : tensor<7x8xf32> to tensor<8xf32>
  %s0 = arith.addf %x0, %h0 : tensor<8xf32>
  %n0 = math.tanh %s0 : tensor<8xf32>
  %x1 = tensor.extract_slice %x[1, 0] [1, 8] [1, 1] : tensor<7x8xf32> to tensor<8xf32>
  %s1 = arith.addf %x1, %n0 : tensor<8xf32>
  %n1 = math.tanh %s1 : tensor<8xf32>
  %x2 = tensor.extract_slice %x[2, 0] [1, 8] [1, 1] : tensor<7x8xf32> to tensor<8xf32>
  %s2 = arith.addf %x2, %n1 : tensor<8xf32>
  %n2 = math.tanh %s2 : tensor<8xf32>
  %x3 = tensor.extract_slice %x[3, 0] [1, 8] [1, 1] : tensor<7x8xf32> to tensor<8xf32>
  %s3 = arith.addf %x3, %n2 : tensor<8xf32>
  %n3 = math.tanh %s3 : tensor<8xf32>
  %x4 = tensor.extract_slice %x[4, 0] [1, 8] [1, 1] : tensor<7x8xf32> to tensor<8xf32>
  %s4 = arith.addf %x4, %n3 : tensor<8xf32>
  %n4 = math.tanh %s4 : tensor<8xf32>
  %x5 = tensor.extract_slice %x[5, 0] [1, 8] [1, 1] : tensor<7x8xf32> to tensor<8xf32>
  %s5 = arith.addf %x5, %n4 : tensor<8xf32>
  %n5 = math.tanh %s5 : tensor<8xf32>
  %x6 = tensor.extract_slice %x[6, 0] [1, 8] [1, 1] : tensor<7x8xf32> to tensor<8xf32>
  %s6 = arith.addf %x6, %n5 : tensor<8xf32>
  %n6 = math.tanh %s6 : tensor<8xf32>
  return %n6 : tensor<8xf32>
}
}

// -----

// The third step reads another step of the input than its own: no rule gives that.

module attributes {parc.symbols = ["T"]} {
func.func @main_0(%x: tensor<4x8xf32> {parc.kind = "input", parc.name = "x"}, %h0: tensor<8xf32> {parc.kind = "input", parc.name = "h0"})
    -> (tensor<8xf32> {parc.name = "h"}) attributes {parc.trace = [4]} {
  %x0 = tensor.extract_slice %x[0, 0] [1, 8] [1, 1] : tensor<4x8xf32> to tensor<8xf32>
  %s0 = arith.addf %x0, %h0 : tensor<8xf32>
  %n0 = math.tanh %s0 : tensor<8xf32>
  %x1 = tensor.extract_slice %x[1, 0] [1, 8] [1, 1] : tensor<4x8xf32> to tensor<8xf32>
  %s1 = arith.addf %x1, %n0 : tensor<8xf32>
  %n1 = math.tanh %s1 : tensor<8xf32>
  %x2 = tensor.extract_slice %x[0, 0] [1, 8] [1, 1] : tensor<4x8xf32> to tensor<8xf32>
  // expected-error @below {{the loop is not regular}}
  %s2 = arith.addf %x2, %n1 : tensor<8xf32>
  %n2 = math.tanh %s2 : tensor<8xf32>
  %x3 = tensor.extract_slice %x[3, 0] [1, 8] [1, 1] : tensor<4x8xf32> to tensor<8xf32>
  %s3 = arith.addf %x3, %n2 : tensor<8xf32>
  %n3 = math.tanh %s3 : tensor<8xf32>
  return %n3 : tensor<8xf32>
}
func.func @main_1(%x: tensor<5x8xf32> {parc.kind = "input", parc.name = "x"}, %h0: tensor<8xf32> {parc.kind = "input", parc.name = "h0"})
    -> (tensor<8xf32> {parc.name = "h"}) attributes {parc.trace = [5]} {
  %x0 = tensor.extract_slice %x[0, 0] [1, 8] [1, 1] : tensor<5x8xf32> to tensor<8xf32>
  %s0 = arith.addf %x0, %h0 : tensor<8xf32>
  %n0 = math.tanh %s0 : tensor<8xf32>
  %x1 = tensor.extract_slice %x[1, 0] [1, 8] [1, 1] : tensor<5x8xf32> to tensor<8xf32>
  %s1 = arith.addf %x1, %n0 : tensor<8xf32>
  %n1 = math.tanh %s1 : tensor<8xf32>
  %x2 = tensor.extract_slice %x[0, 0] [1, 8] [1, 1] : tensor<5x8xf32> to tensor<8xf32>
  %s2 = arith.addf %x2, %n1 : tensor<8xf32>
  %n2 = math.tanh %s2 : tensor<8xf32>
  %x3 = tensor.extract_slice %x[3, 0] [1, 8] [1, 1] : tensor<5x8xf32> to tensor<8xf32>
  %s3 = arith.addf %x3, %n2 : tensor<8xf32>
  %n3 = math.tanh %s3 : tensor<8xf32>
  %x4 = tensor.extract_slice %x[4, 0] [1, 8] [1, 1] : tensor<5x8xf32> to tensor<8xf32>
  %s4 = arith.addf %x4, %n3 : tensor<8xf32>
  %n4 = math.tanh %s4 : tensor<8xf32>
  return %n4 : tensor<8xf32>
}
func.func @main_2(%x: tensor<7x8xf32> {parc.kind = "input", parc.name = "x"}, %h0: tensor<8xf32> {parc.kind = "input", parc.name = "h0"})
    -> (tensor<8xf32> {parc.name = "h"}) attributes {parc.trace = [7]} {
  %x0 = tensor.extract_slice %x[0, 0] [1, 8] [1, 1] : tensor<7x8xf32> to tensor<8xf32>
  %s0 = arith.addf %x0, %h0 : tensor<8xf32>
  %n0 = math.tanh %s0 : tensor<8xf32>
  %x1 = tensor.extract_slice %x[1, 0] [1, 8] [1, 1] : tensor<7x8xf32> to tensor<8xf32>
  %s1 = arith.addf %x1, %n0 : tensor<8xf32>
  %n1 = math.tanh %s1 : tensor<8xf32>
  %x2 = tensor.extract_slice %x[0, 0] [1, 8] [1, 1] : tensor<7x8xf32> to tensor<8xf32>
  %s2 = arith.addf %x2, %n1 : tensor<8xf32>
  %n2 = math.tanh %s2 : tensor<8xf32>
  %x3 = tensor.extract_slice %x[3, 0] [1, 8] [1, 1] : tensor<7x8xf32> to tensor<8xf32>
  %s3 = arith.addf %x3, %n2 : tensor<8xf32>
  %n3 = math.tanh %s3 : tensor<8xf32>
  %x4 = tensor.extract_slice %x[4, 0] [1, 8] [1, 1] : tensor<7x8xf32> to tensor<8xf32>
  %s4 = arith.addf %x4, %n3 : tensor<8xf32>
  %n4 = math.tanh %s4 : tensor<8xf32>
  %x5 = tensor.extract_slice %x[5, 0] [1, 8] [1, 1] : tensor<7x8xf32> to tensor<8xf32>
  %s5 = arith.addf %x5, %n4 : tensor<8xf32>
  %n5 = math.tanh %s5 : tensor<8xf32>
  %x6 = tensor.extract_slice %x[6, 0] [1, 8] [1, 1] : tensor<7x8xf32> to tensor<8xf32>
  %s6 = arith.addf %x6, %n5 : tensor<8xf32>
  %n6 = math.tanh %s6 : tensor<8xf32>
  return %n6 : tensor<8xf32>
}
}

// -----

module attributes {parc.symbols = ["T"]} {
  // expected-error @below {{parc.trace has 2 sizes for 1 symbols}}
  func.func @main_0(%x: tensor<4x8xf32>) -> tensor<4x8xf32> attributes {parc.trace = [4, 2]} {
    return %x : tensor<4x8xf32>
  }
}
