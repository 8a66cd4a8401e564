// RUN: parc-opt %s --emit=ptx --arch=sm_80 --ptxas-info | filecheck %s --check-prefixes=CHECK,SM80
// RUN: parc-opt %s --emit=ptx --arch=sm_90 --ptxas-info | filecheck %s --check-prefixes=CHECK,SM90
// RUN: parc-opt %s --emit=ptx --arch=sm_100 --ptxas-info | filecheck %s --check-prefixes=CHECK,SM90

// A GPU computes to the bit what a CPU does: everything is rounded once, and fused only where the IR says so.
// CHECK-NOT: .extern .func
// CHECK-NOT: .approx
gpu.module @arithmetic {
  // CHECK: .visible .entry apart(
  // CHECK-NOT: fma
  // CHECK: mul.rn.f32
  // CHECK-NEXT: add.rn.f32
  // CHECK: div.rn.f32
  // CHECK: sqrt.rn.f32
  // CHECK-NOT: fma
  // CHECK: ret;
  gpu.func @apart(%x: memref<?xf32>) kernel {
    %i = gpu.thread_id x
    %tenth = arith.constant 0.1 : f32
    %a = memref.load %x[%i] : memref<?xf32>
    %b = arith.mulf %a, %a : f32
    %c = arith.addf %b, %a : f32
    %d = arith.divf %tenth, %c : f32
    %e = math.sqrt %d : f32
    memref.store %e, %x[%i] : memref<?xf32>
    gpu.return
  }

  // CHECK: .visible .entry fused(
  // CHECK: fma.rn.f32{{ .*}} 0f3DCCCCCD;
  // CHECK: fma.rn.f32
  // CHECK-NOT: fma
  // CHECK: ret;
  gpu.func @fused(%x: memref<?xf32>) kernel {
    %i = gpu.thread_id x
    %tenth = arith.constant 0.1 : f32
    %a = vector.load %x[%i] : memref<?xf32>, vector<1xf32>
    %s = vector.extract %a[0] : f32 from vector<1xf32>
    %b = math.fma %s, %s, %tenth : f32
    %v = vector.broadcast %b : f32 to vector<1xf32>
    %c = vector.fma %v, %a, %v : vector<1xf32>
    vector.store %c, %x[%i] : memref<?xf32>, vector<1xf32>
    gpu.return
  }

  // Two numbers at a time, as bfloat16; the A100 adds by multiplying with one.
  // CHECK: .visible .entry narrow(
  // SM80: fma.rn.bf16x2
  // SM90: add.rn.bf16x2
  // CHECK-NOT: cvt
  // CHECK: fma.rn.bf16x2
  // CHECK: max.NaN.bf16x2
  // CHECK: ret;
  gpu.func @narrow(%x: memref<?xbf16>) kernel {
    %i = gpu.thread_id x
    %j = affine.apply affine_map<(d) -> (d * 2)>(%i)
    %a = vector.load %x[%j] {alignment = 4 : i64} : memref<?xbf16>, vector<2xbf16>
    %tenth = arith.constant dense<0.1> : vector<2xbf16>
    %b = arith.addf %a, %tenth : vector<2xbf16>
    %c = vector.fma %a, %b, %a : vector<2xbf16>
    %d = arith.maximumf %c, %a : vector<2xbf16>
    vector.store %d, %x[%j] {alignment = 4 : i64} : memref<?xbf16>, vector<2xbf16>
    gpu.return
  }

  // CHECK: .visible .entry rounded(
  // CHECK: cvt.f32.bf16
  // CHECK: cvt.rn.bf16.f32
  gpu.func @rounded(%x: memref<?xbf16>) kernel {
    %i = gpu.thread_id x
    %a = memref.load %x[%i] : memref<?xbf16>
    %b = arith.extf %a : bf16 to f32
    %tenth = arith.constant 0.1 : f32
    %c = arith.addf %b, %tenth : f32
    %d = arith.truncf %c : f32 to bf16
    memref.store %d, %x[%i] : memref<?xbf16>
    gpu.return
  }
}
