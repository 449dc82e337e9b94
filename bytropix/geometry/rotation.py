"""Rotations of tangent space, and linear maps over quaternions.

so_n: any rotation, exp of a skew matrix     quat: x -> p x q on blocks of four     identity: none
"""

import torch
from torch import Tensor, nn

from bytropix.errors import ConfigError


def hamilton(a: Tensor, b: Tensor) -> Tensor:
    """Return the Hamilton product of quaternions (..., 4), real part first."""
    a0, a1, a2, a3 = a.unbind(-1)
    b0, b1, b2, b3 = b.unbind(-1)
    return torch.stack(
        [
            a0 * b0 - a1 * b1 - a2 * b2 - a3 * b3,
            a0 * b1 + a1 * b0 + a2 * b3 - a3 * b2,
            a0 * b2 - a1 * b3 + a2 * b0 + a3 * b1,
            a0 * b3 + a1 * b2 - a2 * b1 + a3 * b0,
        ],
        dim=-1,
    )


class SpecialOrthogonal(nn.Module):
    """x -> x exp(Q - Q^T): every rotation of n dimensions, with n (n - 1) / 2 free numbers."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.angles = nn.Parameter(0.01 * torch.randn(dim * (dim - 1) // 2))

    def matrix(self) -> Tensor:
        """Return the rotation (n, n)."""
        upper = torch.zeros(self.dim, self.dim, dtype=self.angles.dtype, device=self.angles.device)
        rows, columns = torch.triu_indices(self.dim, self.dim, 1, device=self.angles.device)
        upper = upper.index_put((rows, columns), self.angles)
        out: Tensor = torch.linalg.matrix_exp(upper - upper.T)
        return out

    def forward(self, x: Tensor) -> Tensor:
        """Return the rotated vectors (..., n)."""
        return x @ self.matrix()


class QuaternionRotation(nn.Module):
    """x -> p x q on each block of four, with unit quaternions p and q of its own: all rotations of four dimensions."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        if dim % 4:
            raise ConfigError(f"rotation 'quat' turns blocks of four: dim must be a multiple of 4, got {dim}")
        one = torch.tensor([1.0, 0.0, 0.0, 0.0])
        self.left = nn.Parameter(one + 0.01 * torch.randn(dim // 4, 4))
        self.right = nn.Parameter(one + 0.01 * torch.randn(dim // 4, 4))

    def forward(self, x: Tensor) -> Tensor:
        """Return the rotated vectors (..., n)."""
        left = nn.functional.normalize(self.left, dim=-1)
        right = nn.functional.normalize(self.right, dim=-1)
        return hamilton(hamilton(left, x.unflatten(-1, (-1, 4))), right).flatten(-2)


class NoRotation(nn.Module):
    """x -> x."""

    def __init__(self, dim: int) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        """Return the vectors (..., n) as they are."""
        return x


class QuaternionLinear(nn.Module):
    """A linear map over quaternions, x -> x W + b: a quarter of the numbers of a real one.

    Args:
        inputs: Multiple of 4.
        outputs: Multiple of 4.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        if inputs % 4 or outputs % 4:
            raise ConfigError(f"transform 'quat' needs dims that are multiples of 4, got {inputs} and {outputs}")
        bound = (inputs // 4) ** -0.5
        self.weight = nn.Parameter(torch.empty(inputs // 4, outputs // 4, 4).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Return the mapped vectors (..., outputs)."""
        basis = torch.eye(4, dtype=self.weight.dtype, device=self.weight.device)
        # Row r of block (i, o) is e_r * w: right multiplication by w as a real 4 x 4 matrix.
        blocks = hamilton(basis[:, None, None, :], self.weight[None])
        matrix = blocks.permute(1, 0, 2, 3).reshape(self.weight.shape[0] * 4, -1)
        return x @ matrix + self.bias


ROTATIONS: dict[str, type[SpecialOrthogonal] | type[QuaternionRotation] | type[NoRotation]] = {
    "so_n": SpecialOrthogonal,
    "quat": QuaternionRotation,
    "identity": NoRotation,
}
