// RUN: parc-opt %s --parc-lower-to-loops="target=sm_90 blocks=4" | filecheck %s
// RUN: parc-opt %s --parc-lower-to-loops="target=sm_90 blocks=4 precision=tf32" | filecheck %s --check-prefix=TF32
// RUN: not parc-opt %s --parc-lower-to-loops=target=sm_12 2>&1 | filecheck %s --check-prefix=ARCH
// RUN: not parc-opt %s --parc-lower-to-loops="target=sm_90 precision=f8" 2>&1 | filecheck %s --check-prefix=PRECISION

// ARCH: error: parc has no GPU architecture 'sm_12'; it has sm_80,
// PRECISION: error: products have no precision 'f8': f32, tf32, bf16, f16

// For thread blocks the team is the same; its members keep in shared memory what their kernels share, and the weight,
// which is read in every step.

// CHECK: func.func @main
// CHECK: "parc.team"() ({
// CHECK: ^bb0(%[[ME:[a-z0-9]+]]: index, %[[BLOCKS:[a-z0-9]+]]: index):
// CHECK-COUNT-3: memref.alloc() {{.*}}#gpu.address_space<workgroup>>
// CHECK: scf.for
// CHECK: func.call @cell_kernel({{.*}}) : ({{.*}}#gpu.address_space<workgroup>>
// CHECK: "parc.barrier"()

// All threads of a block run the kernel: a part of the sums each, then, behind barriers, an element of the result each.

// CHECK: func.func private @cell_kernel({{.*}}#gpu.address_space<workgroup>>
// CHECK: %[[THREAD:.*]] = gpu.thread_id x
// CHECK: gpu.barrier
// CHECK: scf.for {{.*}} iter_args
// CHECK: math.fma
// CHECK: gpu.barrier
// CHECK: memref.store %{{.*}}, %{{.*}} : memref<?xf32>
// CHECK-NOT: nvgpu.mma.sync

// Rounded factors are multiplied by tensor cores.

// TF32: func.func private @cell_kernel(
// TF32: arith.andi {{.*}} : i32
// TF32: gpu.barrier
// TF32: nvgpu.mma.sync({{.*}}) {mmaShape = [16, 8, 8], tf32Enabled}
// TF32-NOT: math.fma
#states = affine_map<()[T] -> (T + 1, 4, 16)>
#here = affine_map<(t)[T] -> (t)>
#next = affine_map<(t)[T] -> (t + 1)>
func.func @main(%T: index, %x: tensor<?x4x16xf32>, %h0: tensor<4x16xf32>, %w: tensor<16x16xf32>) -> tensor<?x4x16xf32> {
  %e = tensor.empty() : tensor<16x16xf32>
  %u = linalg.transpose ins(%w : tensor<16x16xf32>) outs(%e : tensor<16x16xf32>) permutation = [1, 0]
  %s = "parc.system"(%T) ({
    %h = "parc.unknown"() {name = "H", shape = #states} : () -> tensor<?x4x16xf32>
    "parc.boundary"(%h, %h0) {domain = affine_set<()[T] : (0 == 0)>, to = affine_map<()[T] -> (0)>, of = affine_map<()[T] -> ()>}
      : (tensor<?x4x16xf32>, tensor<4x16xf32>) -> ()
    "parc.equation"() ({
    ^bb0(%t: index):
      %xt = "parc.read"(%x) {at = #here} : (tensor<?x4x16xf32>) -> tensor<4x16xf32>
      %ht = "parc.read"(%h) {at = #here} : (tensor<?x4x16xf32>) -> tensor<4x16xf32>
      %new = linalg.matmul ins(%ht, %u : tensor<4x16xf32>, tensor<16x16xf32>) outs(%xt : tensor<4x16xf32>) -> tensor<4x16xf32>
      "parc.write"(%new, %h) {at = #next} : (tensor<4x16xf32>, tensor<?x4x16xf32>) -> ()
    }) {name = "cell", domain = affine_set<(t)[T] : (t >= 0, T - 1 - t >= 0)>, schedule = affine_map<(t)[T] -> (t)>} : () -> ()
  }) {symbols = ["T"], strategy = "layers", distribute = "units"} : (index) -> !parc.solution
  %H = "parc.array"(%s) {name = "H"} : (!parc.solution) -> tensor<?x4x16xf32>
  return %H : tensor<?x4x16xf32>
}
