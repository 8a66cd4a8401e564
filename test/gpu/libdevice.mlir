// RUN: parc-opt %s --emit=ptx --arch=sm_80 --ptxas-info | filecheck %s
// RUN: parc-opt %s --emit=ptx --arch=sm_90 --ptxas-info | filecheck %s
// RUN: parc-opt %s --emit=ptx --arch=sm_100 --ptxas-info | filecheck %s

// Elementary functions are libdevice's, inlined; nothing is left to link, and of libdevice only what is used.
// CHECK-NOT: .func
// CHECK: .visible .entry hyperbolic(
// CHECK-NOT: call
// Subnormal numbers are not flushed, but where the function's own error hides it.
// CHECK: ex2.approx
// CHECK: fma.rn.f32
// CHECK-NOT: call
// CHECK: ret;
// CHECK-NOT: .func
gpu.module @elementary {
  gpu.func @hyperbolic(%x: memref<?xf32>) kernel attributes {known_block_size = array<i32: 256, 1, 1>} {
    %i = gpu.thread_id x
    %a = vector.load %x[%i] : memref<?xf32>, vector<1xf32>
    %b = math.tanh %a : vector<1xf32>
    vector.store %b, %x[%i] : memref<?xf32>, vector<1xf32>
    gpu.return
  }
}
