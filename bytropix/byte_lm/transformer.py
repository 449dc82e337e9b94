"""The yardstick: a plain causal byte transformer, as good as the field builds them at this size.

    begin, bytes before -> embedding -> pre-RMSNorm blocks (RoPE, QK-norm, SwiGLU) -> head

It takes the same arguments as the WuBu model and ignores the patches. Positions are those in the row; only their
differences count, so a document reads the same wherever it lies in one.
"""

import torch
from torch import Tensor, nn

from bytropix.byte_lm.config import ByteTransformerConfig
from bytropix.byte_lm.documents import Borders
from bytropix.byte_lm.heads import HEADS, Head
from bytropix.byte_lm.layers import Block, KeyValueCache, RMSNorm, Rotary
from bytropix.byte_lm.steps import BlockSteps, HeadStep, fits
from bytropix.kernels import array

BEGIN = 256  # row of the embedding that stands in front of the first byte


class ByteTransformer(nn.Module):
    """Log-probabilities of every next byte of a window.

    Args:
        config: Sizes.
        context: Longest window in bytes, minus one.
    """

    def __init__(self, config: ByteTransformerConfig, *, context: int) -> None:
        super().__init__()
        self.config, self.positions = config, context + 1
        self.bytes = nn.Embedding(257, config.width)
        nn.init.normal_(self.bytes.weight, std=0.5)
        self.rotary = Rotary(config.width // config.heads, self.positions)
        self.blocks = nn.ModuleList(Block(config.width, config.heads, config.dropout) for _ in range(config.layers))
        self.norm = RMSNorm(config.width)
        self.head: Head = HEADS[config.head](config.width)

    def forward(self, bytes_BT: Tensor, starts_BT: Tensor, patches: int, documents_BT: Tensor | None = None) -> Tensor:
        """Return log-probabilities (B, T, 256) in nats; index i predicts byte i from its document's bytes before it."""
        return self.head(self.states(bytes_BT, documents_BT))

    def nats(self, bytes_BT: Tensor, starts_BT: Tensor, patches: int, documents_BT: Tensor | None = None) -> Tensor:
        """Return -log p (B, T) of each byte given the bytes before it in its document, in nats."""
        return self.head.nats(self.states(bytes_BT, documents_BT), bytes_BT)

    def states(self, bytes_BT: Tensor, documents_BT: Tensor | None = None) -> Tensor:
        """Return the states (B, T, D) that the head turns into predictions; `documents_BT` as in `Borders.of`."""
        begin_B1 = torch.full_like(bytes_BT[:, :1], 0).long() + BEGIN
        inputs_BT = torch.cat([begin_B1, bytes_BT[:, :-1].long()], dim=1)
        if documents_BT is None:
            return self.run(inputs_BT, None, first=0)
        borders = Borders.of(documents_BT)
        return self.run(inputs_BT.masked_fill(borders.opens_BT, BEGIN), None, first=0, visible_BTT=borders.visible_BTT)

    def run(
        self,
        inputs_BT: Tensor,
        caches: list[KeyValueCache] | None,
        *,
        first: int,
        visible_BTT: Tensor | None = None,
    ) -> Tensor:
        """Return the states of input symbols (0..256) that begin at index `first`."""
        x_BTD = self.bytes(inputs_BT)
        turn = self.rotary.at(slice(first, first + x_BTD.shape[1]))
        for index, block in enumerate(self.blocks):
            x_BTD = block(x_BTD, turn, None if caches is None else caches[index], visible_BTT)
        out: Tensor = self.norm(x_BTD)
        return out

    def session(self) -> "TransformerSession":
        """Return an incremental reader of one window, for generation."""
        return TransformerSession(self)

    def scalars(self) -> dict[str, Tensor]:
        """Return nothing: there is no geometry to log."""
        return {}


class TransformerSteps:
    """A ByteTransformer for one position at a time."""

    def __init__(self, model: ByteTransformer) -> None:
        self._bytes = array(model.bytes.weight)
        self._blocks = BlockSteps(model.blocks, model.rotary, model.norm)
        self._head = HeadStep(model.head)

    def __call__(self, symbol: int, caches: list[KeyValueCache]) -> Tensor:
        """Return the log-probabilities (256,) of the byte after a symbol (0..256)."""
        return self._head(self._blocks(self._bytes[symbol], caches))


class TransformerSession:
    """One window of a ByteTransformer, batch of one; the same contract as WuBuSession."""

    @torch.inference_mode()
    def __init__(self, model: ByteTransformer) -> None:
        self._model = model
        self.length = 0
        self._caches = [KeyValueCache() for _ in model.blocks]
        self._steps = TransformerSteps(model) if fits(model.bytes.weight) else None
        self.log_probs = self._predict([BEGIN], first=0)[-1]

    @torch.inference_mode()
    def push(self, values: list[int], next_starts: list[bool]) -> Tensor:
        """Read bytes and return the log-probabilities (n, 256) of the byte after each."""
        if len(values) == 1 and self._steps is not None:
            log_probs = self._steps(values[0], self._caches)[None]
        else:
            log_probs = self._predict(values, first=self.length + 1)
        self.length += len(values)
        self.log_probs = log_probs[-1]
        return log_probs

    def copy(self) -> "TransformerSession":
        """Return a session that goes on from here on its own."""
        twin = object.__new__(TransformerSession)
        twin.__dict__.update(self.__dict__)
        twin._caches = [cache.copy() for cache in self._caches]
        return twin

    def _predict(self, symbols: list[int], *, first: int) -> Tensor:
        inputs_1T = torch.tensor([symbols], device=self._model.bytes.weight.device)
        return self._model.head(self._model.run(inputs_1T, self._caches, first=first))[0]
