// RUN: parc-opt %s --emit=asm | filecheck %s
// RUN: parc-opt %s --emit=object -o %t.o
// RUN: %python -c "import sys; data = open(sys.argv[1], 'rb').read(4); assert data == b'\x7fELF'" %t.o

// A module in the LLVM dialect goes straight to machine code.
// CHECK: <twice>:
llvm.func @twice(%x: i64) -> i64 {
  %0 = llvm.add %x, %x : i64
  llvm.return %0 : i64
}
