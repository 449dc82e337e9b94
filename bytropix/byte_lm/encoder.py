"""The local encoder: bytes to byte states, byte states to one vector a patch.

    byte + hashed n-grams that end at it + place in its patch -> causal layers -> byte states
    byte states of a patch, asked by the state of its last byte -> patch vector

Everything at byte t is a function of the bytes up to t. The place of a patch among patches is given by the mixer's
rotary positions.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bytropix.byte_lm.config import LocalConfig, NgramConfig
from bytropix.byte_lm.layers import Block, CrossAttention, KeyValueCache, Rotary

PLACES = 64  # places in a patch that have a vector of their own; later ones share the last


class NgramEmbedding(nn.Module):
    """Sum of hashed n-gram vectors, for each byte those of the n-grams that end at it.

    The n bytes are packed in one 64-bit word, multiplied by an odd constant of their own and folded (the finalizer of
    splitmix64), so that order matters and the rows are used evenly. Bytes before the window count as zero.
    """

    def __init__(self, config: NgramConfig, width: int) -> None:
        super().__init__()
        self.sizes, self.rows = config.sizes, config.rows
        self.tables = nn.ModuleList(nn.Embedding(config.rows, width) for _ in config.sizes)
        for table in self.tables:
            assert isinstance(table, nn.Embedding)
            nn.init.normal_(table.weight, std=0.02)

    def rows_of(self, bytes_BT: Tensor, size: int) -> Tensor:
        """Return the table row of the `size`-gram that ends at each byte."""
        values_BT = bytes_BT.long()
        word = values_BT
        for back in range(1, size):
            word = word | (F.pad(values_BT, (back, 0))[:, : values_BT.shape[1]] << (8 * back))
        # Constants of splitmix64 as signed 64-bit numbers; the size sets apart n-grams that begin with NULs.
        word = (word ^ (size * 0x0A3B_F12D_94C7_5E61)) * -4658895280553007687
        word = (word ^ ((word >> 27) & 0x1FFFFFFFFF)) * -7723592293110705685
        return ((word >> 31) & 0x7FFFFFFF) % self.rows

    def forward(self, bytes_BT: Tensor) -> Tensor:
        """Return the sum of the n-gram vectors (B, T, D)."""
        vectors = [table(self.rows_of(bytes_BT, size)) for size, table in zip(self.sizes, self.tables, strict=True)]
        return torch.stack(vectors).sum(0)


class LocalEncoder(nn.Module):
    """Bytes to byte states (B, T, D) and patch vectors (B, P, M).

    Args:
        config: Width, layers, heads.
        ngram: The n-gram tables.
        patch_width: Width M of a patch vector.
        positions: Longest window in bytes.
        dropout: Share of features dropped after each branch in training.
    """

    def __init__(
        self, config: LocalConfig, ngram: NgramConfig, *, patch_width: int, positions: int, dropout: float
    ) -> None:
        super().__init__()
        self.bytes = nn.Embedding(256, config.width)
        nn.init.normal_(self.bytes.weight, std=0.5)
        self.places = nn.Embedding(PLACES, config.width)
        nn.init.normal_(self.places.weight, std=0.02)
        self.ngrams = NgramEmbedding(ngram, config.width) if ngram.sizes else None
        self.rotary = Rotary(config.width // config.heads, positions)
        self.blocks = nn.ModuleList(Block(config.width, config.heads, dropout) for _ in range(config.layers))
        self.norm = nn.RMSNorm(config.width)
        self.pool = CrossAttention(config.width, config.width, config.heads)
        self.to_patch = nn.Linear(config.width, patch_width, bias=False)

    def embed(self, bytes_BT: Tensor, place_BT: Tensor) -> Tensor:
        """Return the sum of byte, n-gram and place vectors (B, T, D)."""
        x_BTD = self.bytes(bytes_BT.long()) + self.places(place_BT.clamp_max(PLACES - 1))
        return x_BTD if self.ngrams is None else x_BTD + self.ngrams(bytes_BT)

    def run(self, x_BTD: Tensor, caches: list[KeyValueCache] | None, *, first: int) -> Tensor:
        """Return the byte states of embedded bytes that begin at position `first`."""
        turn = self.rotary.at(slice(first, first + x_BTD.shape[1]))
        for index, block in enumerate(self.blocks):
            x_BTD = block(x_BTD, turn, None if caches is None else caches[index])
        out: Tensor = self.norm(x_BTD)
        return out

    def patch_vectors(self, states_BTD: Tensor, last_BP: Tensor, inside_BPT: Tensor) -> Tensor:
        """Return one vector (B, P, M) for each patch, pooled from the states of its own bytes.

        Args:
            states_BTD: Byte states.
            last_BP: Index of each patch's last byte in `states_BTD`.
            inside_BPT: True where a byte belongs to the patch.
        """
        asked_BPD = states_BTD.gather(1, last_BP[..., None].expand(-1, -1, states_BTD.shape[2]))
        pooled_BPD = asked_BPD + self.pool(asked_BPD, self.pool.keys_values(states_BTD, None), inside_BPT, None)
        out: Tensor = self.to_patch(pooled_BPD)
        return out
