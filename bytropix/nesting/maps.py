"""Networks in tangent space: combiner, flow, and the maps between levels."""

from collections.abc import Callable, Sequence
from itertools import pairwise

from torch import nn

from bytropix.geometry import QuaternionLinear


def linear(inputs: int, outputs: int) -> nn.Linear:
    """Return a linear layer with Glorot weights and no offset at the start."""
    layer = nn.Linear(inputs, outputs)
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def combiner(inputs: int, hidden: Sequence[int], outputs: int, dropout: float) -> nn.Sequential:
    """Return (Linear, LayerNorm, GELU, Dropout) for each hidden width, then Linear."""
    widths = [inputs, *hidden]
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [linear(before, after), nn.LayerNorm(after), nn.GELU(), nn.Dropout(dropout)]
    return nn.Sequential(*layers, linear(widths[-1], outputs))


def flow_mlp(dim: int, ratio: float, dropout: float) -> nn.Module:
    """Return a small two-layer network from a tangent space to itself."""
    hidden = max(16, int(ratio * dim))
    return nn.Sequential(linear(dim, hidden), nn.GELU(), nn.Dropout(dropout), linear(hidden, dim))


def flow_linear(dim: int, ratio: float, dropout: float) -> nn.Module:
    """Return a linear flow."""
    return linear(dim, dim)


FLOWS: dict[str, Callable[[int, float, float], nn.Module]] = {"mlp": flow_mlp, "linear": flow_linear}


def map_mlp(inputs: int, outputs: int, hidden: int, dropout: float) -> nn.Module:
    """Return Linear, LayerNorm, GELU, Dropout, Linear."""
    return combiner(inputs, [hidden or max(16, (inputs + outputs) // 2)], outputs, dropout)


def map_linear(inputs: int, outputs: int, hidden: int, dropout: float) -> nn.Module:
    """Return a linear map."""
    return linear(inputs, outputs)


def map_quaternion(inputs: int, outputs: int, hidden: int, dropout: float) -> nn.Module:
    """Return a linear map over quaternions."""
    return QuaternionLinear(inputs, outputs)


TRANSFORMS: dict[str, Callable[[int, int, int, float], nn.Module]] = {
    "mlp": map_mlp,
    "linear": map_linear,
    "quat": map_quaternion,
}
