// RUN: not parc-opt %s --split-input-file --symbol-dce 2>&1 >%t | filecheck %s
// RUN: filecheck %s --check-prefix=OUT --input-file %t

// Each part is a module of its own. One that fails is reported, with the line numbers of the file, and the rest go on.

// OUT-NOT: @unused
// OUT: @first
// OUT: // -----
// OUT-NOT: @second
// OUT: @third
func.func @first() {
  return
}
func.func private @unused()

// -----

// CHECK: split_input.mlir:21:8: error: custom op 'arith.nonsense' is unknown
// CHECK-NEXT: {{^}}    %x = arith.nonsense
func.func @second() {
  %x = arith.nonsense
}

// -----

func.func @third() {
  return
}
