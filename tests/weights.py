"""Weights of two runs that must be the same, bit for bit."""

import numpy as np
from safetensors.numpy import load_file


def weights(folder):
    (file,) = folder.glob("*model.safetensors")
    return load_file(file)


def same(one, other):
    assert one.keys() == other.keys()
    for name, array in one.items():
        np.testing.assert_array_equal(array, other[name])
