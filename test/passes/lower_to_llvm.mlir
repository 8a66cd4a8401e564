// RUN: parc-opt %s --parc-lower-to-llvm | filecheck %s

// A buffer becomes the fields of its descriptor; only this module's own helpers can be dropped.

// CHECK: llvm.func @parc_team_barrier()
// CHECK: llvm.func internal @helper
// CHECK: llvm.func @main(%{{.*}}: i64, %{{.*}}: !llvm.ptr, %{{.*}}: !llvm.ptr, %{{.*}}: i64, %{{.*}}: i64, %{{.*}}: i64)
// CHECK-NOT: builtin.unrealized_conversion_cast
func.func private @parc_team_barrier()

func.func private @helper(%x: memref<?xf32>, %i: index) {
  %v = vector.load %x[%i] : memref<?xf32>, vector<8xf32>
  %w = arith.addf %v, %v : vector<8xf32>
  vector.store %w, %x[%i] : memref<?xf32>, vector<8xf32>
  return
}

func.func @main(%tid: index, %x: memref<?xf32>) {
  call @helper(%x, %tid) : (memref<?xf32>, index) -> ()
  call @parc_team_barrier() : () -> ()
  return
}
