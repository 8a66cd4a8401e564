"""Programs on NVIDIA GPUs, through the CUDA driver: memory and streams are torch's."""
