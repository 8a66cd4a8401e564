// RUN: parc-opt %s --split-input-file --verify-diagnostics

// An expectation names the line of its error: its own, one above or below, or some lines away.

func.func @own_line() {
  %x = arith.nonsense // expected-error {{custom op 'arith.nonsense' is unknown}}
}

// -----

func.func @line_above() {
  %x = arith.nonsense
  // expected-error @above {{is unknown}}
}

// -----

func.func @line_below() {
  // expected-error @below {{is unknown}}
  %x = arith.nonsense
}

// -----

func.func @lines_away() {
  // expected-error @+2 {{is unknown}}

  %x = arith.nonsense
}

// -----

func.func @main() {
  %x = arith.nonsense

  // expected-error @-2 {{is unknown}}
}
