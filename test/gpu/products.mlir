// RUN: parc-opt %s --emit=ptx --arch=sm_80 --ptxas-info | filecheck %s
// RUN: parc-opt %s --emit=ptx --arch=sm_90 --ptxas-info | filecheck %s
// RUN: parc-opt %s --emit=ptx --arch=sm_100 --ptxas-info | filecheck %s

// A warp multiplies tiles on the tensor cores; the fragments come from memory four registers at a time.
// CHECK: kernel {{.*}}registers{{.*}}spilled bytes
// CHECK-NEXT: tf32 {{ *}}32 {{ *[0-9]+}} {{ *}}0 {{ *}}0 {{ *}}0{{$}}
// CHECK-NEXT: bf16 {{ *}}32 {{ *[0-9]+}} {{ *}}0 {{ *}}0 {{ *}}0{{$}}
// CHECK-NEXT: f16 {{ *}}32 {{ *[0-9]+}} {{ *}}0 {{ *}}0 {{ *}}0{{$}}
gpu.module @products {
  // CHECK: .visible .entry tf32(
  // CHECK: .reqntid 32, 1, 1
  // CHECK: ld.global.v{{[24]}}
  // CHECK: mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32
  // CHECK: st.global.v{{[24]}}
  gpu.func @tf32(%a: memref<?xf32>, %b: memref<?xf32>, %c: memref<?xf32>) kernel
      attributes {known_block_size = array<i32: 32, 1, 1>} {
    %lane = gpu.lane_id
    %i = affine.apply affine_map<(d) -> (d * 4)>(%lane)
    %j = affine.apply affine_map<(d) -> (d * 2)>(%lane)
    %a0 = vector.load %a[%i] {alignment = 16 : i64} : memref<?xf32>, vector<4xf32>
    %b0 = vector.load %b[%j] {alignment = 8 : i64} : memref<?xf32>, vector<2xf32>
    %c0 = vector.load %c[%i] {alignment = 16 : i64} : memref<?xf32>, vector<4xf32>
    %a1 = vector.shape_cast %a0 : vector<4xf32> to vector<4x1xf32>
    %b1 = vector.shape_cast %b0 : vector<2xf32> to vector<2x1xf32>
    %c1 = vector.shape_cast %c0 : vector<4xf32> to vector<2x2xf32>
    %d1 = nvgpu.mma.sync (%a1, %b1, %c1) {mmaShape = [16, 8, 8], tf32Enabled}
      : (vector<4x1xf32>, vector<2x1xf32>, vector<2x2xf32>) -> vector<2x2xf32>
    %d0 = vector.shape_cast %d1 : vector<2x2xf32> to vector<4xf32>
    vector.store %d0, %c[%i] {alignment = 16 : i64} : memref<?xf32>, vector<4xf32>
    gpu.return
  }

  // CHECK: .visible .entry bf16(
  // CHECK: mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32
  gpu.func @bf16(%a: memref<?xbf16>, %b: memref<?xbf16>, %c: memref<?xf32>) kernel
      attributes {known_block_size = array<i32: 32, 1, 1>} {
    %lane = gpu.lane_id
    %i = affine.apply affine_map<(d) -> (d * 8)>(%lane)
    %j = affine.apply affine_map<(d) -> (d * 4)>(%lane)
    %a0 = vector.load %a[%i] {alignment = 16 : i64} : memref<?xbf16>, vector<8xbf16>
    %b0 = vector.load %b[%j] {alignment = 8 : i64} : memref<?xbf16>, vector<4xbf16>
    %c0 = vector.load %c[%j] {alignment = 16 : i64} : memref<?xf32>, vector<4xf32>
    %a1 = vector.shape_cast %a0 : vector<8xbf16> to vector<4x2xbf16>
    %b1 = vector.shape_cast %b0 : vector<4xbf16> to vector<2x2xbf16>
    %c1 = vector.shape_cast %c0 : vector<4xf32> to vector<2x2xf32>
    %d1 = nvgpu.mma.sync (%a1, %b1, %c1) {mmaShape = [16, 8, 16]}
      : (vector<4x2xbf16>, vector<2x2xbf16>, vector<2x2xf32>) -> vector<2x2xf32>
    %d0 = vector.shape_cast %d1 : vector<2x2xf32> to vector<4xf32>
    vector.store %d0, %c[%j] {alignment = 16 : i64} : memref<?xf32>, vector<4xf32>
    gpu.return
  }

  // The accumulators start at zero.
  // CHECK: .visible .entry f16(
  // CHECK: mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32
  gpu.func @f16(%a: memref<?xf16>, %b: memref<?xf16>, %c: memref<?xf32>) kernel
      attributes {known_block_size = array<i32: 32, 1, 1>} {
    %lane = gpu.lane_id
    %i = affine.apply affine_map<(d) -> (d * 4)>(%lane)
    %j = affine.apply affine_map<(d) -> (d * 2)>(%lane)
    %a0 = vector.load %a[%i] {alignment = 8 : i64} : memref<?xf16>, vector<4xf16>
    %b0 = vector.load %b[%j] {alignment = 4 : i64} : memref<?xf16>, vector<2xf16>
    %c1 = arith.constant dense<0.0> : vector<2x2xf32>
    %a1 = vector.shape_cast %a0 : vector<4xf16> to vector<2x2xf16>
    %b1 = vector.shape_cast %b0 : vector<2xf16> to vector<1x2xf16>
    %d1 = nvgpu.mma.sync (%a1, %b1, %c1) {mmaShape = [16, 8, 8]}
      : (vector<2x2xf16>, vector<1x2xf16>, vector<2x2xf32>) -> vector<2x2xf32>
    %d0 = vector.shape_cast %d1 : vector<2x2xf32> to vector<4xf32>
    vector.store %d0, %c[%i] {alignment = 16 : i64} : memref<?xf32>, vector<4xf32>
    gpu.return
  }
}
