// RUN: parc-opt %s --parc-emulate-gpu | filecheck %s

// What a kernel does with memory and with other threads becomes calls of the emulator; each such place has a number.

// CHECK: module attributes {parc.sites = ["memref.load at model.py:4:7", "memref.store at -:{{[0-9]+}}:5",
// CHECK-SAME: "gpu.barrier at {{.*}}
// CHECK-DAG: func.func private @parc_emulated_dynamic_shared() -> memref<?xi8> attributes {llvm.emit_c_interface}
// CHECK-DAG: func.func private @parc_emulated_access(index, index, index, index, index)

// A name of the host's functions is taken: the kernels' one gets another.
// CHECK: func.func private @helper() -> index
func.func private @helper() -> index {
  %c1 = arith.constant 1 : index
  return %c1 : index
}

gpu.module @kernels {
  // CHECK: memref.global "private" constant @table
  memref.global "private" constant @table : memref<2xf32> = dense<[1.0, 2.0]>

  // CHECK: func.func private @kernels_helper
  func.func private @helper(%s: memref<64xf32, #gpu.address_space<workgroup>>, %i: index) -> f32 {
    // CHECK: memref.load {{.*}} : memref<64xf32>
    %e = memref.load %s[%i] : memref<64xf32, #gpu.address_space<workgroup>> loc(fused["h", callsite("model.py":4:7 at "caller.py":1:1)])
    return %e : f32
  }

  // CHECK: func.func @kernel(%[[X:.*]]: memref<?xf32>)
  gpu.func @kernel(%x: memref<?xf32>)
      workgroup(%own: memref<8xf32, #gpu.address_space<workgroup>>)
      private(%mine: memref<2xf32, #gpu.address_space<private>>) kernel {
    // The kernel may touch its arguments.
    // CHECK: %[[POINTER:.*]] = memref.extract_aligned_pointer_as_index
    // CHECK: %[[ADDRESS:.*]] = arith.addi %[[POINTER]]
    // CHECK: call @parc_emulated_buffer(%[[ADDRESS]], %{{.*}}, %c0{{.*}})
    // CHECK: %[[BYTES:.*]] = call @parc_emulated_static_shared(%c0{{.*}}, %c32{{.*}}) : (index, index) -> memref<?xi8>
    // CHECK: %[[OWN:.*]] = memref.view %[[BYTES]]
    // CHECK: %[[MINE:.*]] = memref.alloca() : memref<2xf32>
    %c0 = arith.constant 0 : index
    %c1 = arith.constant 1 : index
    // CHECK: call @parc_emulated_dynamic_shared()
    %bytes = gpu.dynamic_shared_memory : memref<?xi8, #gpu.address_space<workgroup>>
    %s = memref.view %bytes[%c0][] : memref<?xi8, #gpu.address_space<workgroup>> to memref<64xf32, #gpu.address_space<workgroup>>
    // CHECK: %[[T:.*]] = call @parc_emulated_thread()
    %t = gpu.thread_id x
    // CHECK-NOT: gpu.thread_id
    %y = gpu.thread_id y
    // CHECK: call @kernels_helper
    %e = func.call @helper(%s, %t) : (memref<64xf32, #gpu.address_space<workgroup>>, index) -> f32
    // An index that may be outside is checked, and the access is told of.
    // CHECK: call @parc_emulated_index(%[[T]], %c1{{.*}}, %c8{{.*}}, %c0{{.*}}, %[[SITE:.*]])
    // CHECK: call @parc_emulated_access(%{{.*}}, %c4{{.*}}, %c4{{.*}}, %c1{{.*}}, %[[SITE]])
    // CHECK: memref.store %{{.*}}, %[[OWN]][%[[T]]]
    memref.store %e, %own[%t] : memref<8xf32, #gpu.address_space<workgroup>>
    // CHECK: call @parc_emulated_barrier
    gpu.barrier
    // Nobody else sees the thread's own memory, and this index is inside.
    // CHECK-NOT: call
    // CHECK: memref.store %{{.*}}, %[[MINE]]
    memref.store %e, %mine[%c1] : memref<2xf32, #gpu.address_space<private>>
    %o = arith.constant 1 : i32
    %w = arith.constant 32 : i32
    // CHECK: call @parc_emulated_shuffle
    // CHECK: call @parc_emulated_shuffle_valid
    %r, %valid = gpu.shuffle down %e, %o, %w : f32
    // CHECK: memref.get_global @table
    %table = memref.get_global @table : memref<2xf32>
    // It reads and writes, for the device, and orders nothing else.
    // CHECK: call @parc_emulated_atomic(%{{.*}}, %c4{{.*}}, %c3{{.*}}, %c0{{.*}}, %c2{{.*}}, %{{.*}})
    %old = memref.atomic_rmw addf %r, %x[%c0] : (f32, memref<?xf32>) -> f32
    %a = memref.extract_aligned_pointer_as_index %x : memref<?xf32> -> index
    %word = arith.index_cast %a : index to i64
    %p = llvm.inttoptr %word : i64 to !llvm.ptr
    // A load that acquires, for the device.
    // CHECK: call @parc_emulated_atomic(%{{.*}}, %c4{{.*}}, %c1{{.*}}, %c1{{.*}}, %c2{{.*}}, %{{.*}})
    %now = llvm.load %p atomic syncscope("device") acquire {alignment = 4 : i64} : !llvm.ptr -> i32
    // CHECK: return
    gpu.return
  }
}
