"""What the compiled kernels for single positions share: how they are compiled, how weights reach them, the product.

tensor -> array, over the same memory -> kernel
"""

from collections.abc import Callable
from typing import ParamSpec, TypeVar

import numba
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Given = ParamSpec("Given")
Result = TypeVar("Result")

Vector = NDArray[np.float32]
Matrix = NDArray[np.float32]
Cube = NDArray[np.float32]

LAYER_NORM_EPS = 1e-5  # torch's


def compiled(function: Callable[Given, Result]) -> Callable[Given, Result]:
    """Return the function compiled at its first call, and kept on disk.

    Sums may be taken in any order; infinities and NaNs keep their meaning, and a division by zero raises nothing.
    """
    loose = {"reassoc", "contract", "nsz"}
    made = numba.njit(cache=True, nogil=True, fastmath=loose, error_model="numpy")
    kernel: Callable[Given, Result] = made(function)
    return kernel


def array(x: Tensor) -> NDArray[np.float32]:
    """Return a tensor as an array, over the same memory if it is contiguous."""
    values: NDArray[np.float32] = x.detach().contiguous().numpy()
    return values


@compiled
def product(weight: Matrix, x: Vector) -> Vector:
    """Return weight @ x."""
    result = np.empty(weight.shape[0], np.float32)
    for i in range(weight.shape[0]):
        total = np.float32(0)
        for j in range(weight.shape[1]):
            total += weight[i, j] * x[j]
        result[i] = total
    return result


@compiled
def affine(x: Vector, weight: Matrix, bias: Vector) -> Vector:
    """Return weight @ x + bias."""
    result = product(weight, x)
    for i in range(result.size):
        result[i] += bias[i]
    return result
