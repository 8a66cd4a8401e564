"""Autoregressive image models as triangular systems over pixels.

A sampler of such a model is the fixed point of a step x' = step(x, u): a network of masked or shifted convolutions,
then a draw with the given noise u.  Evaluated pixel by pixel it takes a run of the network for each of the H * W
pixels.  Here the step becomes one `parc.system`: an array for each layer's activations, an equation that computes a
layer at one pixel (h, w) from those that the convolution sees, and x itself one of the unknowns.  Every activation is
computed once, and the order is that of the exact dependences.

    nonzero.py      which taps of the convolutions have weights
    image.py        which dimensions are pixels; padding, slices and shifts as windows on other arrays
    layers.py       which values are arrays, and which equation computes them
    point.py        operations at one pixel
    write.py        the system
    sampler.py      from an imported step to an imported sampler
"""
