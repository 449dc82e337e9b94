"""The transformer parts that both byte models are built from, each able to go on from a cache.

    x -> + attention(rms_norm(x)) -> + cross attention to the memory (decoder only) -> + swiglu(rms_norm(x))

Shapes: B batch, T positions, S keys, H heads, D width, E head width. A cache holds the keys and values of past
positions; its tensors are never written in place, so that copying a cache is copying two references.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(slots=True)
class KeyValueCache:
    """Keys and values of the positions so far, `None` before the first."""

    keys_BHSE: Tensor | None = None
    values_BHSE: Tensor | None = None

    def append(self, keys_BHTE: Tensor, values_BHTE: Tensor) -> tuple[Tensor, Tensor]:
        """Add new positions and return all keys and values."""
        if self.keys_BHSE is not None and self.values_BHSE is not None:
            keys_BHTE = torch.cat([self.keys_BHSE, keys_BHTE], dim=2)
            values_BHTE = torch.cat([self.values_BHSE, values_BHTE], dim=2)
        self.keys_BHSE, self.values_BHSE = keys_BHTE, values_BHTE
        return keys_BHTE, values_BHTE

    def copy(self) -> "KeyValueCache":
        """Return a cache that grows apart from this one."""
        return KeyValueCache(self.keys_BHSE, self.values_BHSE)


class Rotary(nn.Module):
    """Rotary position embedding (Su et al. 2021) with a table of `positions` rows.

    Args:
        head_width: Even width of a head.
        positions: Largest position + 1.
    """

    cos: Tensor
    sin: Tensor

    def __init__(self, head_width: int, positions: int) -> None:
        super().__init__()
        rates = 10000.0 ** (-torch.arange(0, head_width, 2, dtype=torch.float32) / head_width)
        angles = torch.arange(positions, dtype=torch.float32)[:, None] * rates
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)

    def at(self, index: Tensor | slice) -> tuple[Tensor, Tensor]:
        """Return cosine and sine rows for positions T (a slice) or B, T (a tensor), shaped to broadcast over heads."""
        cos, sin = self.cos[index], self.sin[index]
        return (cos, sin) if cos.dim() == 2 else (cos[:, None], sin[:, None])


def rotate(x_BHTE: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    """Turn the feature pairs (e, e + E/2) of each position by its angle."""
    first, second = x_BHTE.chunk(2, dim=-1)
    cos, sin = turn
    return torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1).to(x_BHTE.dtype)


def init_linear(layer: nn.Linear, *, scale: float = 1.0) -> nn.Linear:
    """Draw weights with standard deviation scale / sqrt(inputs)."""
    nn.init.normal_(layer.weight, std=scale * layer.in_features**-0.5)
    return layer


class SelfAttention(nn.Module):
    """Causal self-attention with rotary positions and normalized queries and keys."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = init_linear(nn.Linear(width, 3 * width, bias=False))
        self.out = init_linear(nn.Linear(width, width, bias=False), scale=0.5)
        self.query_norm = nn.RMSNorm(width // heads)
        self.key_norm = nn.RMSNorm(width // heads)

    def forward(self, x_BTD: Tensor, turn: tuple[Tensor, Tensor], cache: KeyValueCache | None = None) -> Tensor:
        """Return the mixed features; `turn` holds the rotations of these T positions."""
        batch, length, width = x_BTD.shape
        q, k, v = self.qkv(x_BTD).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        q, k = rotate(self.query_norm(q), turn), rotate(self.key_norm(k), turn)
        mask = None
        if cache is not None:
            k, v = cache.append(k, v)
            past = k.shape[2] - length
            if past and length > 1:
                mask = torch.ones(length, k.shape[2], dtype=torch.bool, device=q.device).tril(past)
        causal = mask is None and length > 1
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)
        out: Tensor = self.out(mixed.transpose(1, 2).reshape(batch, length, width))
        return out


class CrossAttention(nn.Module):
    """Attention from byte positions to memory slots that a mask makes visible.

    Args:
        width: Width D of the queries.
        memory_width: Width M of the slots.
        heads: Number of heads.
    """

    def __init__(self, width: int, memory_width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = init_linear(nn.Linear(width, width, bias=False))
        self.key_value = init_linear(nn.Linear(memory_width, 2 * width, bias=False))
        self.out = init_linear(nn.Linear(width, width, bias=False), scale=0.5)
        self.query_norm = nn.RMSNorm(width // heads)
        self.key_norm = nn.RMSNorm(width // heads)

    def keys_values(self, memory_BSM: Tensor, turn: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor]:
        """Return keys and values B, H, S, E of the slots."""
        batch, slots, _ = memory_BSM.shape
        k, v = self.key_value(memory_BSM).view(batch, slots, 2, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        k = self.key_norm(k)
        return (k if turn is None else rotate(k, turn)), v

    def forward(
        self,
        x_BTD: Tensor,
        keys_values: tuple[Tensor, Tensor],
        visible_BTS: Tensor | None,
        turn: tuple[Tensor, Tensor] | None,
    ) -> Tensor:
        """Return what each position reads; `visible_BTS` is True where slot s may be read (None: all)."""
        batch, length, width = x_BTD.shape
        q = self.query_norm(self.query(x_BTD).view(batch, length, self.heads, -1).transpose(1, 2))
        q = q if turn is None else rotate(q, turn)
        mask = None if visible_BTS is None else visible_BTS[:, None]
        mixed = F.scaled_dot_product_attention(q, *keys_values, attn_mask=mask)
        out: Tensor = self.out(mixed.transpose(1, 2).reshape(batch, length, width))
        return out


class SwiGLU(nn.Module):
    """Gated feed-forward layer (Shazeer 2020) of hidden width 8/3 D, rounded up to a multiple of 32."""

    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = -(-8 * width // 96) * 32
        self.gate_up = init_linear(nn.Linear(width, 2 * hidden, bias=False))
        self.down = init_linear(nn.Linear(hidden, width, bias=False), scale=0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Return down(silu(gate(x)) * up(x))."""
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        out: Tensor = self.down(F.silu(gate) * up)
        return out


class Block(nn.Module):
    """One pre-norm causal layer: self-attention, then SwiGLU."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.attention_norm, self.attention = nn.RMSNorm(width), SelfAttention(width, heads)
        self.feed_norm, self.feed = nn.RMSNorm(width), SwiGLU(width)
        self.drop = nn.Dropout(dropout)

    def forward(self, x_BTD: Tensor, turn: tuple[Tensor, Tensor], cache: KeyValueCache | None = None) -> Tensor:
        """Return the features after this layer."""
        x_BTD = x_BTD + self.drop(self.attention(self.attention_norm(x_BTD), turn, cache))
        out: Tensor = x_BTD + self.drop(self.feed(self.feed_norm(x_BTD)))
        return out
