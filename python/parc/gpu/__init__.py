"""Device code: from the `gpu.module`s of an outlined program to PTX and cubin.

Read in this order: `device_code` (the whole way), `arch` (the architectures), `nvvm` (gpu dialect -> LLVM IR), `ptx`
(LLVM IR -> PTX; `literals`), `ptxas` (PTX -> cubin, and what a kernel takes), `toolkit` (what of NVIDIA's these need).
"""
