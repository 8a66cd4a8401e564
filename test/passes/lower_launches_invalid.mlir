// RUN: parc-opt %s --parc-lower-launches --split-input-file --verify-diagnostics

// Kernels are known by their names, and their grids are rows of blocks.

module attributes {gpu.container_module} {
  func.func @main(%n: index) {
    %c1 = arith.constant 1 : index
    gpu.launch_func @a::@k blocks in (%n, %c1, %c1) threads in (%c1, %c1, %c1)
    // expected-error @below {{@b::@k and @a::@k are kernels of one name}}
    gpu.launch_func @b::@k blocks in (%n, %c1, %c1) threads in (%c1, %c1, %c1)
    return
  }
  gpu.module @a {
    gpu.func @k() kernel {
      gpu.return
    }
  }
  gpu.module @b {
    gpu.func @k() kernel {
      gpu.return
    }
  }
}

// -----

module attributes {gpu.container_module} {
  func.func @main(%n: index) {
    %c1 = arith.constant 1 : index
    // expected-error @below {{grids and blocks of kernels have one dimension}}
    gpu.launch_func @a::@k blocks in (%n, %n, %c1) threads in (%c1, %c1, %c1)
    return
  }
  gpu.module @a {
    gpu.func @k() kernel {
      gpu.return
    }
  }
}
