"""Autoregressive image models as triangular systems over pixels.

A sampler of such a model is the fixed point of a step x' = step(x, u): a network of masked or shifted convolutions,
then a draw with the given noise u.  Evaluated pixel by pixel it takes a run of the network for each of the H * W
pixels.  Here the step becomes one `parc.system`: an array for each layer's activations, an equation that computes a
layer at one pixel (h, w) from those that the convolution sees, and x itself one of the unknowns.  Every activation is
computed once, and the order is that of the exact dependences.

    dims.py         which values depend on the image, and which of their dimensions are its rows and columns
    windows.py      padding, slices and shifts as windows on other values
    structure.py    linalg operations seen from one pixel
    nonzero.py      which elements of weights can be other than zero
    taps.py         what an operation sees from a pixel
    layers.py       which values become arrays, and which equation computes each
    point.py        what an equation computes at one pixel; generic.py, tiles.py, known.py: its operations
    write.py        the system
    sampler.py      from an imported step to an imported sampler
"""
