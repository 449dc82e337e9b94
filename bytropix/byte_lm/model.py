"""The WuBu byte language model.

    bytes, starts -> local encoder -> byte states ----------------------------------------------+
                         | pool closed patches                                                   v
                         v                                                                  byte decoder -> head
                     patch vectors -> causal mixer -> nested hyperbolic levels -> memory slots --^

Index i predicts byte i from the bytes before it: the one shift is the decoder's, whose input at index i is the state
of byte i - 1 (a learned vector at index 0). Patch [a, b) may be read at index i when b <= i, since whether byte i
starts a patch is decided from the bytes before i (bytropix.patching). So the product of the predicted probabilities
is a likelihood of the whole window.

A row may hold several documents. Each is then read as if it lay in a row by itself: masks keep attention, mixer,
nesting and memory to it, n-grams see zeros before it, its first byte is predicted from the learned vector, and its
slots are numbered from 0. Rotary positions go on through the row, since only their differences count.
"""

import torch
from torch import Tensor, nn

from bytropix.byte_lm.config import WuBuConfig
from bytropix.byte_lm.decoder import ByteDecoder
from bytropix.byte_lm.documents import Borders
from bytropix.byte_lm.encoder import LocalEncoder
from bytropix.byte_lm.heads import HEADS, Head
from bytropix.byte_lm.layers import Block, KeyValueCache, RMSNorm, Rotary
from bytropix.byte_lm.patches import lay_out
from bytropix.byte_lm.session import WuBuSession
from bytropix.nesting import NestedStack


class PatchMixer(nn.Module):
    """A causal transformer over patch vectors (B, P, M)."""

    def __init__(self, width: int, layers: int, heads: int, *, positions: int, dropout: float) -> None:
        super().__init__()
        self.rotary = Rotary(width // heads, positions)
        self.blocks = nn.ModuleList(Block(width, heads, dropout) for _ in range(layers))
        self.norm = RMSNorm(width)

    def forward(
        self,
        x_BPM: Tensor,
        caches: list[KeyValueCache] | None = None,
        *,
        first: int = 0,
        visible_BPP: Tensor | None = None,
    ) -> Tensor:
        """Return the mixed vectors of patches `first`, `first` + 1, ..."""
        turn = self.rotary.at(slice(first, first + x_BPM.shape[1]))
        for index, block in enumerate(self.blocks):
            x_BPM = block(x_BPM, turn, None if caches is None else caches[index], visible_BPP)
        out: Tensor = self.norm(x_BPM)
        return out


class WuBuByteLM(nn.Module):
    """Log-probabilities of every next byte of a window.

    Args:
        config: Sizes and switches.
        context: Longest window in bytes that the model sees, minus one (a training window has context + 1 bytes).
    """

    def __init__(self, config: WuBuConfig, *, context: int) -> None:
        super().__init__()
        self.config, self.positions = config, context + 1
        width, memory = config.encoder.width, config.mixer.width
        drop = config.dropout
        self.encoder = LocalEncoder(
            config.encoder, config.ngram, patch_width=memory, positions=self.positions, dropout=drop
        )
        self.mixer = PatchMixer(memory, config.mixer.layers, config.mixer.heads, positions=self.positions, dropout=drop)
        self.nesting = NestedStack(memory, memory, config.nesting)
        self.memory_norm = RMSNorm(memory)
        self.first_slot = nn.Parameter(torch.randn(memory) * 0.5)
        self.decoder = ByteDecoder(config.decoder, memory_width=memory, positions=self.positions, dropout=drop)
        self.head: Head = HEADS[config.head](width)

    def forward(self, bytes_BT: Tensor, starts_BT: Tensor, patches: int, documents_BT: Tensor | None = None) -> Tensor:
        """Return log-probabilities (B, T, 256) in nats; index i predicts byte i from the bytes before it.

        Args:
            bytes_BT: Byte values, T at most context + 1.
            starts_BT: True where a byte starts a patch; the first column is True.
            patches: At least the largest number of starts among the first T - 1 bytes of a row.
            documents_BT: Of rows that hold several documents, the number of each byte's: 1, 2, ..., each of which opens
                a patch, and 0 for padding behind them. No prediction in one depends on another.
        """
        return self.head(self.states(bytes_BT, starts_BT, patches, documents_BT))

    def nats(self, bytes_BT: Tensor, starts_BT: Tensor, patches: int, documents_BT: Tensor | None = None) -> Tensor:
        """Return -log p (B, T) of each byte given the bytes before it in its document, in nats."""
        return self.head.nats(self.states(bytes_BT, starts_BT, patches, documents_BT), bytes_BT)

    def states(self, bytes_BT: Tensor, starts_BT: Tensor, patches: int, documents_BT: Tensor | None = None) -> Tensor:
        """Return the states (B, T, D) that the head turns into predictions."""
        borders = None if documents_BT is None else Borders.of(documents_BT)
        depth_BT, visible_BTT = (None, None) if borders is None else (borders.depth_BT, borders.visible_BTT)
        layout = lay_out(starts_BT, patches, borders)
        embedded_BTD = self.encoder.embed(bytes_BT, layout.place_BT, depth_BT=depth_BT)
        states_BTD = self.encoder.run(embedded_BTD, None, first=0, visible_BTT=visible_BTT)
        vectors_BPM = self.encoder.patch_vectors(states_BTD, layout.last_BP, layout.patch_of_BT)
        memory_BSM = self.with_first_slot(self.think(vectors_BPM, layout.visible_BPP))
        begin_B1D = self.decoder.begin.expand(bytes_BT.shape[0], 1, -1).to(states_BTD.dtype)
        before_BTD = torch.cat([begin_B1D, states_BTD[:, :-1]], dim=1)
        if borders is not None:
            before_BTD = torch.where(borders.opens_BT[..., None], begin_B1D, before_BTD)
        out: Tensor = self.decoder(
            before_BTD,
            layout.place_BT,
            layout.freshest_BT,
            self.decoder.slots(memory_BSM, numbers_BS=layout.number_BS),
            layout.visible_BTS,
            number_BT=layout.number_BT,
            visible_BTT=visible_BTT,
        )
        return out

    def think(self, vectors_BPM: Tensor, visible_BPP: Tensor | None = None) -> Tensor:
        """Return the memory slots (B, P, M) of patch vectors: mixer, nesting, norm.

        Args:
            vectors_BPM: The patches.
            visible_BPP: True where a patch may see another; never a later one. None: all before.
        """
        mixed_BPM = self.mixer(vectors_BPM, visible_BPP=visible_BPP)
        memory_BPM: Tensor = self.memory_norm(self.nesting(mixed_BPM, visible_BPP=visible_BPP))
        return memory_BPM

    def with_first_slot(self, memory_BPM: Tensor) -> Tensor:
        """Put the learned slot, visible from the first index on, in front."""
        first_B1M = self.first_slot.to(memory_BPM.dtype).expand(memory_BPM.shape[0], 1, -1)
        return torch.cat([first_B1M, memory_BPM], dim=1)

    def session(self) -> WuBuSession:
        """Return an incremental reader of one window, for generation."""
        return WuBuSession(self)

    def scalars(self) -> dict[str, Tensor]:
        """Return the learned curvature, scale and spread of each level by their metric tag."""
        return self.nesting.scalars()
