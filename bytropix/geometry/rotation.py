"""Rotations of tangent space, and linear maps over quaternions.

so_n: Cayley form of a skew matrix     quat: x -> p x q on blocks of four     identity: none

The first rotation is near the identity ("small"), or turns the k-th plane of two coordinates, k = 1, 2, ..., by
2 pi / phi^k ("phi"): by the golden angle one way, then the other, then ever less. Both draw the same random numbers, so
that what a seed makes of the rest of a model is the same.
"""

import math

import torch
from torch import Tensor, nn

from bytropix.errors import ConfigError

GOLDEN = (1 + math.sqrt(5)) / 2  # phi


def golden_angles(planes: int) -> Tensor:
    """Return 2 pi / phi^k for k = 1 to `planes`, in radians, float64."""
    return 2 * math.pi / GOLDEN ** torch.arange(1, planes + 1, dtype=torch.float64)


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


def around_i(angles: Tensor) -> Tensor:
    """Return the quaternions cos a + i sin a (n, 4) of angles (n,)."""
    zeros = torch.zeros_like(angles)
    return torch.stack([angles.cos(), angles.sin(), zeros, zeros], dim=-1)


class SpecialOrthogonal(nn.Module):
    """x -> x (I - A)^-1 (I + A), A skew: the Cayley form of rotations, with n (n - 1) / 2 free numbers.

    Every rotation but those with a half turn, which lie at infinity; a solve, where exp(2 A) takes a series both ways.
    """

    def __init__(self, dim: int, init: str = "small") -> None:
        super().__init__()
        if dim < 2:
            raise ConfigError(f"rotation 'so_n' needs a dim of at least 2, got {dim}")
        self.dim = dim
        angles, places = 0.01 * torch.randn(dim * (dim - 1) // 2), torch.triu_indices(dim, dim, 1)
        if init == "phi":  # a turn by t in one plane, and none elsewhere, is the number 2 tan(t / 2) here
            in_planes = (places[0] % 2 == 0) & (places[1] == places[0] + 1)
            angles = torch.zeros_like(angles)
            angles[in_planes] = (2 * (golden_angles(dim // 2) / 2).tan()).to(angles.dtype)
        self.angles = nn.Parameter(angles)
        self.places: Tensor
        self.register_buffer("places", places, persistent=False)

    def matrix(self) -> Tensor:
        """Return the rotation (n, n); where all angles are small it turns by them."""
        upper = self.angles.new_zeros(self.dim, self.dim).index_put((self.places[0], self.places[1]), self.angles / 2)
        skew, one = upper - upper.T, torch.eye(self.dim, dtype=upper.dtype, device=upper.device)
        # I - A can always be inverted, so nothing is checked: on a GPU the host would wait for the answer.
        out: Tensor = torch.linalg.solve_ex(one - skew, one + skew).result
        return out

    def forward(self, x: Tensor, matrix: Tensor | None = None) -> Tensor:
        """Return the rotated vectors (..., n); `matrix` is what `matrix` returned, where that is known."""
        return x @ (self.matrix() if matrix is None else matrix)


class QuaternionRotation(nn.Module):
    """x -> p x q on each block of four, with unit quaternions p and q of its own: all rotations of four dimensions."""

    def __init__(self, dim: int, init: str = "small") -> None:
        super().__init__()
        if dim % 4:
            raise ConfigError(f"rotation 'quat' turns blocks of four: dim must be a multiple of 4, got {dim}")
        one = torch.tensor([1.0, 0.0, 0.0, 0.0])
        left, right = one + 0.01 * torch.randn(dim // 4, 4), one + 0.01 * torch.randn(dim // 4, 4)
        if init == "phi":  # e^(ai) x e^(bi) turns the planes 1, i and j, k by a + b and by a - b
            first, second = golden_angles(dim // 2).reshape(-1, 2).unbind(-1)
            left, right = (around_i(half).to(one.dtype) for half in ((first + second) / 2, (first - second) / 2))
        self.left, self.right = nn.Parameter(left), nn.Parameter(right)

    def matrix(self) -> Tensor:
        """Return the rotation of each block (n / 4, 4, 4), for row vectors."""
        left = nn.functional.normalize(self.left, dim=-1)[:, None]
        right = nn.functional.normalize(self.right, dim=-1)[:, None]
        return hamilton(hamilton(left, torch.eye(4, dtype=left.dtype, device=left.device)), right)

    def forward(self, x: Tensor, matrix: Tensor | None = None) -> Tensor:
        """Return the rotated vectors (..., n); `matrix` is what `matrix` returned, where that is known."""
        blocks = x.reshape(*x.shape[:-1], -1, 1, 4)
        return (blocks @ (self.matrix() if matrix is None else matrix)).reshape(x.shape)


class NoRotation(nn.Module):
    """x -> x."""

    def __init__(self, dim: int, init: str = "small") -> None:
        super().__init__()

    def matrix(self) -> Tensor | None:
        """Return nothing."""
        return None

    def forward(self, x: Tensor, matrix: Tensor | None = None) -> Tensor:
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

    def matrix(self) -> Tensor:
        """Return W as a real matrix (inputs, outputs), for row vectors."""
        basis = torch.eye(4, dtype=self.weight.dtype, device=self.weight.device)
        # Row r of block (i, o) is e_r * w: right multiplication by w as a real 4 x 4 matrix.
        blocks = hamilton(basis[:, None, None, :], self.weight[None])
        return blocks.permute(1, 0, 2, 3).reshape(self.weight.shape[0] * 4, -1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the mapped vectors (..., outputs)."""
        return x @ self.matrix() + self.bias


ROTATIONS: dict[str, type[SpecialOrthogonal] | type[QuaternionRotation] | type[NoRotation]] = {
    "so_n": SpecialOrthogonal,
    "quat": QuaternionRotation,
    "identity": NoRotation,
}
