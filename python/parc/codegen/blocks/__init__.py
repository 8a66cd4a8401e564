"""Code for GPUs: kernels of thread blocks, their launches, and what the emulator makes of them (docs/gpu.md)."""
