"""A training loop in plain NumPy: Hyena learns to delay its input by ten tokens.

Run it with ``python examples/numpy_loop.py``; it takes a few seconds and prints the loss.
"""

import numpy

import mixers

rng = numpy.random.default_rng(0)
mixer = mixers.create("hyena", dim=8, grid=(64,))
params = mixer.init(0)
first = {name: numpy.zeros_like(p) for name, p in params.items()}
second = {name: numpy.zeros_like(p) for name, p in params.items()}

for step in range(1, 301):
    x = rng.standard_normal((16, 64, 8), dtype="float32")
    target = numpy.roll(x, 10, axis=1)
    target[:, :10] = 0.0

    y, saved = mixer.forward(params, x)
    error = y - target
    # gradient of the mean square with respect to y
    dparams, dx = mixer.backward(2.0 * error / error.size, saved)

    # Adam
    for name, gradient in dparams.items():
        first[name] = 0.9 * first[name] + 0.1 * gradient
        second[name] = 0.99 * second[name] + 0.01 * gradient**2
        scale = (1 - 0.99**step) ** 0.5 / (1 - 0.9**step)
        params[name] -= 3e-3 * scale * first[name] / (second[name] ** 0.5 + 1e-8)

    if step % 50 == 0 or step == 1:
        print(f"step {step:3d}  mean square error {float((error**2).mean()):.4f}")
