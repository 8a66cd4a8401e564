// RUN: parc-opt %s --emit=ptx --arch=sm_80 --ptxas-info | filecheck %s
// RUN: parc-opt %s --emit=ptx --arch=sm_90 --ptxas-info | filecheck %s
// RUN: parc-opt %s --emit=ptx --arch=sm_100 --ptxas-info | filecheck %s

// What the compiler knows of memory: dynamic shared memory is the launch's, static memory is counted, kernels' arguments
// are in global memory, and loads are as wide as their known alignment.
module attributes {gpu.container_module} {
  // The block's size is the one that every launch has.
  // CHECK: kernel {{ *}}threads
  // CHECK-NEXT: memory {{ *}}128 {{.*}} 64{{$}}
  // CHECK-NEXT: aligned {{ *}}any {{.*}} 0{{$}}
  func.func @main(%n: index, %bytes: i32, %x: memref<?xf32>) {
    %one = arith.constant 1 : index
    %threads = arith.constant 128 : index
    gpu.launch_func @kernels::@memory blocks in (%n, %one, %one) threads in (%threads, %one, %one)
      dynamic_shared_memory_size %bytes args(%x : memref<?xf32>)
    return
  }

  // Only the kernel can be seen from outside.
  // CHECK-NOT: .func
  // CHECK: .extern .shared .align 16 .b8 [[SHARED:.*]][];
  // CHECK-NOT: .func
  gpu.module @kernels {
    // A device function is inlined, although it is called twice.
    func.func private @scale(%x: memref<?xf32>, %i: index, %tile: memref<32x4xf32, #gpu.address_space<workgroup>>) {
      %t = gpu.thread_id x
      %zero = arith.constant 0 : index
      %v = vector.load %tile[%t, %zero] : memref<32x4xf32, #gpu.address_space<workgroup>>, vector<4xf32>
      %w = vector.load %x[%i] {alignment = 16 : i64} : memref<?xf32>, vector<4xf32>
      %p = arith.mulf %v, %w : vector<4xf32>
      vector.store %p, %x[%i] {alignment = 16 : i64} : memref<?xf32>, vector<4xf32>
      return
    }

    // CHECK: .visible .entry memory(
    // CHECK: .reqntid 128, 1, 1
    // CHECK: .minnctapersm 1
    // CHECK: shfl.sync.bfly.b32
    // CHECK: ld.global.v{{[24]}}.
    // CHECK: st.shared.v{{[24]}}.
    // CHECK: ld.shared.v{{[24]}}.
    // CHECK: st.global.v{{[24]}}.
    // CHECK-NOT: {{[^a-z](ld|st)\.[bv]}}
    // CHECK: ret;
    gpu.func @memory(%x: memref<?xf32>)
        workgroup(%partial: memref<16xf32, #gpu.address_space<workgroup>>) kernel {
      %t = gpu.thread_id x
      %zero = arith.constant 0 : index
      %offset = arith.constant 1 : i32
      %width = arith.constant 32 : i32
      %f = memref.load %x[%t] : memref<?xf32>
      %other, %valid = gpu.shuffle xor %f, %offset, %width : f32
      %i = affine.apply affine_map<(d) -> (d * 4)>(%t)
      %shared = gpu.dynamic_shared_memory : memref<?xi8, #gpu.address_space<workgroup>>
      %tile = memref.view %shared[%zero][]
        : memref<?xi8, #gpu.address_space<workgroup>> to memref<32x4xf32, #gpu.address_space<workgroup>>
      %k = arith.remui %t, %i : index
      memref.store %other, %partial[%k] : memref<16xf32, #gpu.address_space<workgroup>>
      gpu.barrier
      %a = vector.load %x[%i] {alignment = 16 : i64} : memref<?xf32>, vector<4xf32>
      %j = affine.apply affine_map<(d) -> (d * 4 + 512)>(%t)
      %b = vector.load %x[%j] : memref<?xf32>, vector<4xf32>
      %c = arith.addf %a, %b : vector<4xf32>
      vector.store %c, %tile[%t, %zero] : memref<32x4xf32, #gpu.address_space<workgroup>>, vector<4xf32>
      gpu.barrier
      %l = memref.load %partial[%zero] : memref<16xf32, #gpu.address_space<workgroup>>
      memref.store %l, %x[%t] : memref<?xf32>
      func.call @scale(%x, %i, %tile) : (memref<?xf32>, index, memref<32x4xf32, #gpu.address_space<workgroup>>) -> ()
      func.call @scale(%x, %j, %tile) : (memref<?xf32>, index, memref<32x4xf32, #gpu.address_space<workgroup>>) -> ()
      gpu.return
    }

    // Without known alignment every number is loaded alone; the assumption holds for all accesses to the buffer.
    // CHECK: .visible .entry aligned(
    // CHECK-COUNT-4: ld.global.b32
    // CHECK-NOT: ld.global.b32
    // CHECK: st.global.v{{[24]}}.
    // CHECK: ret;
    gpu.func @aligned(%x: memref<?xf32>, %y: memref<?xf32>) kernel {
      %t = gpu.thread_id x
      %i = affine.apply affine_map<(d) -> (d * 4)>(%t)
      %aligned = memref.assume_alignment %y, 16 : memref<?xf32>
      %v = vector.load %x[%i] : memref<?xf32>, vector<4xf32>
      vector.store %v, %aligned[%i] : memref<?xf32>, vector<4xf32>
      gpu.return
    }
  }
}
