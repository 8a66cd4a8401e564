// RUN: parc-opt %s --emit=ptx --split-input-file --verify-diagnostics

gpu.module @m {
  gpu.func @copy(%a: memref<8xf32>, %b: memref<8xf32>) kernel {
    // expected-error @below {{there is no device code for 'linalg.copy'}}
    linalg.copy ins(%a : memref<8xf32>) outs(%b : memref<8xf32>)
    gpu.return
  }
}

// -----

gpu.module @one {
  gpu.func @same() kernel {
    gpu.return
  }
}
gpu.module @two {
  // expected-error @below {{two kernels are called @same}}
  gpu.func @same() kernel {
    gpu.return
  }
}

// -----

// expected-error @unknown {{kernels call functions that a GPU does not have: elsewhere}}
gpu.module @m {
  func.func private @elsewhere(f32) -> f32
  gpu.func @call(%a: memref<f32>) kernel {
    %x = memref.load %a[] : memref<f32>
    %y = func.call @elsewhere(%x) : (f32) -> f32
    memref.store %y, %a[] : memref<f32>
    gpu.return
  }
}
