// RUN: parc-opt %s --split-input-file --verify-diagnostics --parc-emulate-gpu

// The emulator must hear of all that kernels do with memory and with other threads.

gpu.module @kernels {
  gpu.func @kernel() kernel {
    // expected-error @+1 {{memref.alloc cannot be emulated}}
    %m = memref.alloc() : memref<4xf32>
    gpu.return
  }
}

// -----

gpu.module @kernels {
  // expected-error @+1 {{memref.global that is not constant cannot be emulated}}
  memref.global "private" @shared : memref<4xf32, #gpu.address_space<workgroup>> = uninitialized
}

// -----

func.func @kernel() {
  return
}
gpu.module @kernels {
  // expected-error @+1 {{the name of the kernel @kernel is taken}}
  gpu.func @kernel() kernel {
    gpu.return
  }
}

// -----

gpu.module @kernels {
  gpu.func @kernel() kernel {
    // expected-error @+1 {{llvm.fence cannot be emulated}}
    llvm.fence syncscope("device") release
    gpu.return
  }
}

// -----

gpu.module @kernels {
  gpu.func @kernel() kernel {
    // expected-error @+1 {{a barrier of a cluster cannot be emulated}}
    gpu.barrier scope<cluster>
    gpu.return
  }
}

// -----

gpu.module @kernels {
  gpu.func @kernel(%p: !llvm.ptr) kernel {
    // expected-error @+1 {{an atomic access of the scope 'cluster' cannot be emulated}}
    %x = llvm.load %p atomic syncscope("cluster") acquire {alignment = 4 : i64} : !llvm.ptr -> i32
    gpu.return
  }
}

// -----

gpu.module @kernels {
  func.func private @f(%a: vector<2x2xf16>, %b: vector<1x2xf16>, %c: vector<2x2xf16>) -> vector<2x2xf16> {
    // expected-error @+1 {{the matrix product vector<2x2xf16> x vector<1x2xf16> + vector<2x2xf16> of shape 16x8x8 cannot be emulated}}
    %d = nvgpu.mma.sync(%a, %b, %c) {mmaShape = [16, 8, 8]} : (vector<2x2xf16>, vector<1x2xf16>, vector<2x2xf16>) -> vector<2x2xf16>
    return %d : vector<2x2xf16>
  }
}

// -----

gpu.module @kernels {
  gpu.func @kernel(%m: memref<?xf32>, %mask: vector<65xi1>, %v: vector<65xf32>) kernel {
    %c0 = arith.constant 0 : index
    // expected-error @+1 {{a masked access of 65 lanes cannot be emulated}}
    vector.maskedstore %m[%c0], %mask, %v : memref<?xf32>, vector<65xi1>, vector<65xf32>
    gpu.return
  }
}
