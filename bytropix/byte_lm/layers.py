"""The transformer parts that both byte models are built from, each able to go on from a cache.

    x -> + cross attention to the memory (decoder only) -> + attention(rms_norm(x)) -> + swiglu(rms_norm(x))

Shapes: B batch, T positions, S keys, H heads, D width, E head width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bytropix.kernels import Cube

FIRST_ROOM = 64  # positions of a new cache


class KeyValueCache:
    """Keys and values of the positions so far, in buffers that double when they are full.

    A position costs one small copy, however many came before it. Modules append tensors; a kernel that takes one
    position writes to the same memory by itself.

    Attributes:
        length: Positions held.
    """

    def __init__(self) -> None:
        self.length = 0
        self._keys_BHSE = self._values_BHSE = torch.empty(0, 0, 0, 0)
        self._arrays: tuple[Cube, Cube] | None = None

    def append(self, keys_BHTE: Tensor, values_BHTE: Tensor) -> tuple[Tensor, Tensor]:
        """Add new positions and return all keys and values; what was returned before does not change."""
        start = self.length
        self._extend(keys_BHTE)
        self._keys_BHSE[:, :, start : self.length] = keys_BHTE
        self._values_BHSE[:, :, start : self.length] = values_BHTE
        return self.held()

    def held(self) -> tuple[Tensor, Tensor]:
        """Return all keys and values."""
        return self._keys_BHSE[:, :, : self.length], self._values_BHSE[:, :, : self.length]

    def claim(self, like_1H1E: Tensor) -> tuple[Cube, Cube, int]:
        """Make room for one position of one row on the CPU, which the caller fills.

        Args:
            like_1H1E: A tensor of the shape and dtype of the key.

        Returns:
            The buffers of keys and of values (H, S, E), and the index of the new position.
        """
        self._extend(like_1H1E)
        return *self.arrays(), self.length - 1

    def arrays(self) -> tuple[Cube, Cube]:
        """Return the buffers (H, S, E) of the keys and of the values, of one row on the CPU."""
        if self._arrays is None:
            self._arrays = self._keys_BHSE[0].numpy(), self._values_BHSE[0].numpy()
        return self._arrays

    def copy(self) -> "KeyValueCache":
        """Return a cache that grows apart from this one."""
        twin = KeyValueCache()
        twin.length = self.length
        twin._keys_BHSE, twin._values_BHSE = self._keys_BHSE.clone(), self._values_BHSE.clone()
        return twin

    def _extend(self, like_BHTE: Tensor) -> None:
        """Count as many positions as `like_BHTE` has, in buffers that hold them."""
        end = self.length + like_BHTE.shape[2]
        if end > self._keys_BHSE.shape[2]:
            self._keys_BHSE = self._grown(self._keys_BHSE, like_BHTE, end)
            self._values_BHSE = self._grown(self._values_BHSE, like_BHTE, end)
            self._arrays = None
        self.length = end

    def _grown(self, old_BHSE: Tensor, new_BHTE: Tensor, end: int) -> Tensor:
        """Return a buffer with room for at least `end` positions that holds what `old_BHSE` holds."""
        batch, heads, _, width = new_BHTE.shape
        grown_BHSE = new_BHTE.new_empty(batch, heads, max(FIRST_ROOM, end, 2 * old_BHSE.shape[2]), width)
        if self.length:
            grown_BHSE[:, :, : self.length] = old_BHSE[:, :, : self.length]
        return grown_BHSE


class RMSNorm(nn.Module):
    """x / rms(x) * weight over the last dimension (Zhang and Sennrich 2019).

    On a CPU half as many kernels as the stock layer, which counts when bytes come one at a time.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self._root = width**0.5

    def forward(self, x: Tensor) -> Tensor:
        """Return x (..., D) normalized; zero stays zero."""
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.promote_types(x.dtype, torch.float32))
        out: Tensor = x / length.clamp_min(1e-6) * (self.weight * self._root)
        return out


class Rotary(nn.Module):
    """Rotary position embedding (Su et al. 2021) with a table of `positions` rows.

    Args:
        head_width: Even width of a head.
        positions: Largest position + 1.
    """

    table: Tensor

    def __init__(self, head_width: int, positions: int) -> None:
        super().__init__()
        rates = 10000.0 ** (-torch.arange(0, head_width, 2, dtype=torch.float64) / head_width)
        angles = torch.arange(positions, dtype=torch.float64)[:, None] * rates
        table = torch.stack([angles.cos(), angles.sin()], dim=-1)[:, None].float()
        self.register_buffer("table", table, persistent=False)

    def at(self, index: Tensor | slice) -> Tensor:
        """Return the turns (..., 1, E / 2), complex, of positions T (a slice) or B, T (a tensor), for any head."""
        return torch.view_as_complex(self.table[index])


def rotate(x_BTHE: Tensor, turn: Tensor) -> Tensor:
    """Turn the feature pairs (2 e, 2 e + 1) of each position by its angle, as complex numbers."""
    pairs = x_BTHE.to(torch.promote_types(x_BTHE.dtype, torch.float32)).reshape(*x_BTHE.shape[:-1], -1, 2)
    return torch.view_as_real(torch.view_as_complex(pairs) * turn).flatten(-2).to(x_BTHE.dtype)


def init_linear(layer: nn.Linear, *, scale: float = 1.0) -> nn.Linear:
    """Draw weights with standard deviation scale / sqrt(inputs)."""
    nn.init.normal_(layer.weight, std=scale * layer.in_features**-0.5)
    return layer


class SelfAttention(nn.Module):
    """Causal self-attention with rotary positions.

    Queries and keys are layer-normalized (Dehghani et al. 2023) with one gain for both, since only its square counts.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = init_linear(nn.Linear(width, 3 * width, bias=False))
        self.out = init_linear(nn.Linear(width, width, bias=False), scale=0.5)
        self.qk_norm = nn.LayerNorm(width // heads, bias=False)

    def forward(
        self, x_BTD: Tensor, turn: Tensor, cache: KeyValueCache | None = None, visible_BTT: Tensor | None = None
    ) -> Tensor:
        """Return the mixed features.

        Args:
            x_BTD: Features of T positions.
            turn: Their turns.
            cache: What came before them.
            visible_BTT: True where a position may read another, without a cache; never a later one. None: all before.
        """
        batch, length, width = x_BTD.shape
        qkv = self.qkv(x_BTD).view(batch, length, 3 * self.heads, -1)
        qk = rotate(self.qk_norm(qkv[:, :, : 2 * self.heads]), turn).transpose(1, 2)
        q, k, v = qk[:, : self.heads], qk[:, self.heads :], qkv[:, :, 2 * self.heads :].transpose(1, 2)
        mask = None if visible_BTT is None else visible_BTT[:, None]
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
        self.query_norm = nn.LayerNorm(width // heads, bias=False)
        self.key_norm = nn.LayerNorm(width // heads, elementwise_affine=False)

    def keys_values(self, memory_BSM: Tensor, turn: Tensor) -> tuple[Tensor, Tensor]:
        """Return keys and values B, H, S, E of the slots; `turn` holds the turns of their S numbers."""
        batch, slots, _ = memory_BSM.shape
        k, v = self.key_value(memory_BSM).view(batch, slots, 2 * self.heads, -1).chunk(2, dim=2)
        return rotate(self.key_norm(k), turn).transpose(1, 2), v.transpose(1, 2)

    def forward(
        self, x_BTD: Tensor, keys_values: tuple[Tensor, Tensor], visible_BTS: Tensor | None, turn: Tensor
    ) -> Tensor:
        """Return what each position reads; `visible_BTS` is True where slot s may be read (None: all)."""
        batch, length, width = x_BTD.shape
        q = rotate(self.query_norm(self.query(x_BTD).view(batch, length, self.heads, -1)), turn).transpose(1, 2)
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
        self.attention_norm, self.attention = RMSNorm(width), SelfAttention(width, heads)
        self.feed_norm, self.feed = RMSNorm(width), SwiGLU(width)
        self.drop = nn.Dropout(dropout)

    def forward(
        self, x_BTD: Tensor, turn: Tensor, cache: KeyValueCache | None = None, visible_BTT: Tensor | None = None
    ) -> Tensor:
        """Return the features after this layer; see `SelfAttention`."""
        x_BTD = x_BTD + self.drop(self.attention(self.attention_norm(x_BTD), turn, cache, visible_BTT))
        out: Tensor = x_BTD + self.drop(self.feed(self.feed_norm(x_BTD)))
        return out
