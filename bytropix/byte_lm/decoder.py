"""The byte decoder: byte states and visible patches to the state that predicts the next byte.

    state of the byte before + place of the byte to come + freshest visible slot
        -> layers of cross-attention to visible slots, causal self-attention, SwiGLU -> state at index i

Slots turn with the number of their patch in its document in the cross-attention, so a layer can tell how far back a
patch lies.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bytropix.byte_lm.config import LocalConfig
from bytropix.byte_lm.encoder import PLACES
from bytropix.byte_lm.layers import Block, CrossAttention, KeyValueCache, RMSNorm, Rotary


@dataclass(frozen=True, slots=True)
class Slots:
    """What the decoder makes of memory slots, once for all bytes that read them; never written in place."""

    fresh_BSD: Tensor
    """What a slot adds to the bytes for which it is the freshest."""
    keys_values: list[tuple[Tensor, Tensor]]
    """Keys and values B, H, S, E for each layer."""


class ByteDecoder(nn.Module):
    """Predicting states (B, T, D) from byte states and memory slots (B, S, M).

    Args:
        config: Width, layers, heads.
        memory_width: Width M of a slot.
        positions: Longest window in bytes, which also bounds the number of patches.
        dropout: Share of features dropped after each branch in training.
    """

    def __init__(self, config: LocalConfig, *, memory_width: int, positions: int, dropout: float) -> None:
        super().__init__()
        self.begin = nn.Parameter(torch.randn(config.width) * 0.5)
        self.places = nn.Embedding(PLACES, config.width)
        nn.init.normal_(self.places.weight, std=0.02)
        self.fresh = nn.Linear(memory_width, config.width, bias=False)
        self.rotary = Rotary(config.width // config.heads, positions + 1)
        self.blocks = nn.ModuleList(Block(config.width, config.heads, dropout) for _ in range(config.layers))
        self.reads = nn.ModuleList(
            CrossAttention(config.width, memory_width, config.heads) for _ in range(config.layers)
        )
        self.read_norms = nn.ModuleList(RMSNorm(config.width) for _ in range(config.layers))
        self.drop = nn.Dropout(dropout)
        self.norm = RMSNorm(config.width)

    def slots(self, memory_BSM: Tensor, *, first: int = 0, numbers_BS: Tensor | None = None) -> Slots:
        """Return what bytes read of the slots.

        Args:
            memory_BSM: The slots.
            first: Number of the first; the others follow.
            numbers_BS: The number of each, where they do not simply follow.
        """
        turn = self.rotary.at(slice(first, first + memory_BSM.shape[1]) if numbers_BS is None else numbers_BS)
        return Slots(self.fresh(memory_BSM), [read.keys_values(memory_BSM, turn) for read in self._reads()])

    def forward(
        self,
        before_BTD: Tensor,
        place_BT: Tensor,
        freshest_BT: Tensor,
        slots: Slots,
        visible_BTS: Tensor | None,
        caches: list[KeyValueCache] | None = None,
        *,
        first: int = 0,
        number_BT: Tensor | None = None,
        visible_BTT: Tensor | None = None,
    ) -> Tensor:
        """Return the predicting states (B, T, D).

        Args:
            before_BTD: State of the byte before each index; `begin` at index 0, and where a document opens.
            place_BT: Place in its patch of the byte to predict.
            freshest_BT: The freshest slot that an index may read, which has the number of the patch of the byte to
                predict; slot 0 in the first patch of any document.
            slots: The memory; slot 0 is the learned one.
            visible_BTS: True where an index may read a slot (None: all).
            caches: One per layer, holding the indices before `first`.
            first: Index of the first prediction in the window.
            number_BT: Number of the freshest slot in the document of the byte to predict, if it is another.
            visible_BTT: True where an index may read another, without caches; see `SelfAttention`.
        """
        fresh_BTD = slots.fresh_BSD.gather(1, freshest_BT[..., None].expand(-1, -1, before_BTD.shape[2]))
        x_BTD = before_BTD + self.places(place_BT.clamp_max(PLACES - 1)) + fresh_BTD
        turn = self.rotary.at(slice(first, first + x_BTD.shape[1]))
        slot_turn = self.rotary.at(freshest_BT if number_BT is None else number_BT)
        for index, (block, read) in enumerate(zip(self.blocks, self._reads(), strict=True)):
            found_BTD = read(self.read_norms[index](x_BTD), slots.keys_values[index], visible_BTS, slot_turn)
            cache = None if caches is None else caches[index]
            x_BTD = block(x_BTD + self.drop(found_BTD), turn, cache, visible_BTT)
        out: Tensor = self.norm(x_BTD)
        return out

    def _reads(self) -> list[CrossAttention]:
        return [read for read in self.reads if isinstance(read, CrossAttention)]
