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
from bytropix.byte_lm.layers import Block, KeyValueCache, RMSNorm, Rotary, init_linear

PLACES = 64  # places in a patch that have a vector of their own; later ones share the last
REACH = 7  # bytes before a byte that its longest n-gram may hold


class NgramEmbedding(nn.Module):
    """Sum of hashed n-gram vectors, for each byte those of the n-grams that end at it.

    The n bytes are packed in one 64-bit word, set apart by n, and mixed (after the finalizer of splitmix64), so that
    order matters and the rows are used evenly. Bytes before the window or the document count as zero. All tables lie in
    one, a row range for each n.
    """

    shifts_K: Tensor
    masks_N: Tensor
    salts_N: Tensor
    offsets_N: Tensor

    def __init__(self, config: NgramConfig, width: int) -> None:
        super().__init__()
        self.rows = config.rows
        sizes = torch.tensor(config.sizes)
        self.table = nn.Embedding(len(config.sizes) * config.rows, width)
        nn.init.normal_(self.table.weight, std=0.02)
        self.register_buffer("shifts_K", 8 * torch.arange(REACH, -1, -1), persistent=False)
        # Eight bytes fill the word: no mask, since 1 << 64 is no 64-bit number.
        masks_N = torch.where(sizes == 8, -1, (1 << (8 * sizes.clamp_max(7))) - 1)
        self.register_buffer("masks_N", masks_N, persistent=False)
        self.register_buffer("salts_N", sizes * 0x0A3B_F12D_94C7_5E61, persistent=False)
        self.register_buffer("offsets_N", torch.arange(len(config.sizes)) * config.rows, persistent=False)

    def rows_of(self, bytes_BT: Tensor, before_BK: Tensor | None = None, depth_BT: Tensor | None = None) -> Tensor:
        """Return the table rows (B, T, N) of the n-grams that end at each byte; see `forward`."""
        if before_BK is None:
            padded = F.pad(bytes_BT.long(), (REACH, 0))
        else:
            padded = torch.cat([before_BK, bytes_BT.long()], dim=1)
        near_BTK = padded.unfold(1, REACH + 1, 1)
        if depth_BT is not None:
            near_BTK = near_BTK.masked_fill(depth_BT[..., None] * 8 < self.shifts_K, 0)
        word_BT = (near_BTK << self.shifts_K).sum(-1)
        word_BTN = (word_BT[..., None] & self.masks_N) ^ self.salts_N
        # Constants of splitmix64 as signed 64-bit numbers; masks make of `>>` a shift that brings in zeros.
        word_BTN = (word_BTN ^ ((word_BTN >> 30) & 0x3_FFFF_FFFF)) * -4658895280553007687
        word_BTN = (word_BTN ^ ((word_BTN >> 27) & 0x1F_FFFF_FFFF)) * -7723592293110705685
        return ((word_BTN >> 31) & 0x7FFF_FFFF) % self.rows + self.offsets_N

    def forward(self, bytes_BT: Tensor, before_BK: Tensor | None = None, depth_BT: Tensor | None = None) -> Tensor:
        """Return the sum of the n-gram vectors (B, T, D).

        Args:
            bytes_BT: Byte values.
            before_BK: The REACH bytes before them, int64; zeros unless given.
            depth_BT: How many bytes of its document lie before each byte: those before count as zero.
        """
        rows_BTN = self.rows_of(bytes_BT, before_BK, depth_BT)
        vectors = F.embedding_bag(rows_BTN.flatten(0, 1), self.table.weight, mode="sum")
        return vectors.view(*bytes_BT.shape, -1)


class PatchPool(nn.Module):
    """Attention of each patch over its own bytes, asked by one state a patch.

    A byte belongs to one patch, so its score is one product a head, and the softmax over a patch is a sum over the
    bytes of each number: the cost grows with the bytes, not with bytes times patches.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = init_linear(nn.Linear(width, width, bias=False))
        self.key_value = init_linear(nn.Linear(width, 2 * width, bias=False))
        self.out = init_linear(nn.Linear(width, width, bias=False), scale=0.5)
        self.query_norm = nn.LayerNorm(width // heads, bias=False)
        self.key_norm = nn.LayerNorm(width // heads, elementwise_affine=False)

    def forward(self, asked_BPD: Tensor, states_BTD: Tensor, patch_of_BT: Tensor) -> Tensor:
        """Return what each patch reads (B, P, D); bytes whose patch number is P or more are left out."""
        batch, patches, width = asked_BPD.shape
        # One patch more takes the bytes that no patch asks for.
        number_BT1 = patch_of_BT.clamp_max(patches)[..., None]
        q_BPD = F.pad(self.query_norm(self._split(self.query(asked_BPD))).flatten(2), (0, 0, 0, 1))
        q_BTHE = self._split(q_BPD.gather(1, number_BT1.expand(-1, -1, width)))
        k_BTHE, v_BTHE = self.key_value(states_BTD).unflatten(-1, (2 * self.heads, -1)).chunk(2, dim=2)
        scores_BTH = (q_BTHE * self.key_norm(k_BTHE)).sum(-1) * (width // self.heads) ** -0.5
        scores_BTH = scores_BTH.to(torch.promote_types(scores_BTH.dtype, torch.float32))
        number_BTH = number_BT1.expand(-1, -1, self.heads)
        empty_BPH = scores_BTH.new_zeros(batch, patches + 1, self.heads)
        most_BPH = empty_BPH.scatter_reduce(1, number_BTH, scores_BTH.detach(), "amax", include_self=False)
        weights_BTH = (scores_BTH - most_BPH.gather(1, number_BTH)).exp()
        totals_BPH = empty_BPH.scatter_add(1, number_BTH, weights_BTH)
        weighted_BTD = (weights_BTH[..., None] * v_BTHE).flatten(2)
        sums_BPD = weighted_BTD.new_zeros(batch, patches + 1, width)
        sums_BPD = sums_BPD.scatter_add(1, number_BT1.expand(-1, -1, width), weighted_BTD)
        # A patch has a total of at least 1; the floor is for numbers that a row does not use, which read zero.
        mixed_BPHE = self._split(sums_BPD) / totals_BPH.clamp_min(1e-6)[..., None]
        out: Tensor = self.out(mixed_BPHE[:, :patches].flatten(2))
        return out

    def _split(self, x: Tensor) -> Tensor:
        """Return features (..., D) by head (..., H, E)."""
        return x.reshape(*x.shape[:-1], self.heads, -1)


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
        self.norm = RMSNorm(config.width)
        self.pool = PatchPool(config.width, config.heads)
        self.drop = nn.Dropout(dropout)
        self.to_patch = nn.Linear(config.width, patch_width, bias=False)

    def embed(
        self,
        bytes_BT: Tensor,
        place_BT: Tensor,
        before_BK: Tensor | None = None,
        depth_BT: Tensor | None = None,
    ) -> Tensor:
        """Return the sum of byte, n-gram and place vectors (B, T, D); the last two as in `NgramEmbedding`."""
        x_BTD: Tensor = self.bytes(bytes_BT.long()) + self.places(place_BT.clamp_max(PLACES - 1))
        return x_BTD if self.ngrams is None else x_BTD + self.ngrams(bytes_BT, before_BK, depth_BT)

    def run(
        self, x_BTD: Tensor, caches: list[KeyValueCache] | None, *, first: int, visible_BTT: Tensor | None = None
    ) -> Tensor:
        """Return the byte states of embedded bytes that begin at position `first`."""
        turn = self.rotary.at(slice(first, first + x_BTD.shape[1]))
        for index, block in enumerate(self.blocks):
            x_BTD = block(x_BTD, turn, None if caches is None else caches[index], visible_BTT)
        out: Tensor = self.norm(x_BTD)
        return out

    def patch_vectors(self, states_BTD: Tensor, last_BP: Tensor, patch_of_BT: Tensor) -> Tensor:
        """Return one vector (B, P, M) for each patch, pooled from the states of its own bytes.

        Args:
            states_BTD: Byte states.
            last_BP: Index of each patch's last byte in `states_BTD`.
            patch_of_BT: Number of the patch that a byte belongs to; P or more for none.
        """
        asked_BPD = states_BTD.gather(1, last_BP[..., None].expand(-1, -1, states_BTD.shape[2]))
        pooled_BPD = asked_BPD + self.drop(self.pool(asked_BPD, states_BTD, patch_of_BT))
        out: Tensor = self.to_patch(pooled_BPD)
        return out
