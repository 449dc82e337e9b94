"""Reading one window byte by byte (or in chunks) with everything that is past kept in caches.

    push(bytes, starts of the bytes after them) -> byte states (encoder cache)
        -> patches that these bytes close: pooled once, mixed once, nested once, their slots kept for the decoder
        -> log-probabilities of each byte to come (decoder cache)

The figures equal those of the whole window at once (tested to 1e-5): the same modules run on the same values.
"""

from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from bytropix.byte_lm.encoder import REACH
from bytropix.byte_lm.layers import KeyValueCache

if TYPE_CHECKING:
    from bytropix.byte_lm.model import WuBuByteLM


class WuBuSession:
    """One window of a WuBuByteLM, batch of one, in evaluation mode.

    Attributes:
        length: Bytes pushed so far.
        log_probs: Log-probabilities (256,) of the byte to come.
    """

    @torch.inference_mode()
    def __init__(self, model: "WuBuByteLM") -> None:
        self._model = model
        self.length = 0
        self._encoder_caches = [KeyValueCache() for _ in model.encoder.blocks]
        self._mixer_caches = [KeyValueCache() for _ in model.mixer.blocks]
        self._decoder_caches = [KeyValueCache() for _ in model.decoder.blocks]
        self._nesting_cache = model.nesting.new_cache()
        device = model.first_slot.device
        self._recent_1K = torch.zeros(1, REACH, dtype=torch.long, device=device)
        # States of the bytes of the open patch, a piece for each push.
        self._open: list[Tensor] = []
        self._place = 0
        self._closed = 0
        self._slots = model.decoder.slots(model.first_slot.view(1, 1, -1))
        zero_11 = torch.zeros(1, 1, dtype=torch.long, device=device)
        self.log_probs = self._predict(model.decoder.begin.view(1, 1, -1), zero_11, zero_11, first=0)[-1]

    @torch.inference_mode()
    def push(self, values: list[int], next_starts: list[bool]) -> Tensor:
        """Read bytes and return the log-probabilities (n, 256) of the byte after each.

        Args:
            values: n byte values, n at least 1; length + n may reach the model's context at most.
            next_starts: For each byte, whether the byte after it starts a patch.
        """
        places, patches = [self._place], [0]
        for starts in next_starts:
            places.append(0 if starts else places[-1] + 1)
            patches.append(patches[-1] + starts)
        rows = torch.tensor([values, places[:-1], places[1:], patches[:-1], patches[1:]], device=self._recent_1K.device)
        values_1T, place_1T, next_place_1T, patch_1T, next_patch_1T = rows[:, None]
        states_1TD = self._encode(values_1T, place_1T)
        before, self._closed = self._closed, self._closed + patches[-1]
        self._close(states_1TD, patch_1T, patches)
        log_probs = self._predict(states_1TD, next_place_1T, next_patch_1T + before, first=self.length + 1)
        self._place = places[-1]
        self.length += len(values)
        self.log_probs = log_probs[-1]
        return log_probs

    @torch.inference_mode()
    def copy(self) -> "WuBuSession":
        """Return a session that goes on from here on its own."""
        twin = object.__new__(WuBuSession)
        twin.__dict__.update(self.__dict__)
        for name in ("_encoder_caches", "_mixer_caches", "_decoder_caches"):
            setattr(twin, name, [cache.copy() for cache in getattr(self, name)])
        twin._nesting_cache = self._nesting_cache.copy()
        twin._open = list(self._open)
        return twin

    def _encode(self, values_1T: Tensor, place_1T: Tensor) -> Tensor:
        """Return the states of new bytes; n-grams look back into the bytes read before."""
        encoder = self._model.encoder
        embedded_1TD = encoder.embed(values_1T, place_1T, self._recent_1K)
        self._recent_1K = torch.cat([self._recent_1K, values_1T], dim=1)[:, -REACH:]
        return encoder.run(embedded_1TD, self._encoder_caches, first=self.length)

    def _close(self, states_1TD: Tensor, patch_1T: Tensor, patches: list[int]) -> None:
        """Turn every patch that ends among the new bytes into a memory slot.

        Args:
            states_1TD: States of the new bytes.
            patch_1T: Patch of each new byte, counted from the one that was open before.
            patches: The same and that of the byte to come.
        """
        model = self._model
        if not patches[-1]:
            self._open.append(states_1TD)
            return
        past = sum(piece.shape[1] for piece in self._open)
        all_1TD = torch.cat([*self._open, states_1TD], dim=1)
        ends = [past + index for index, (own, after) in enumerate(pairwise(patches)) if after > own]
        patch_of_1T = torch.cat([patch_1T.new_zeros(1, past), patch_1T], dim=1)
        last_1P = torch.tensor([ends], device=all_1TD.device)
        vectors_1PM = model.encoder.patch_vectors(all_1TD, last_1P, patch_of_1T)
        first = self._closed - len(ends)
        mixed_1PM = model.mixer(vectors_1PM, self._mixer_caches, first=first)
        slots_1PM = model.memory_norm(model.nesting(mixed_1PM, self._nesting_cache))
        self._slots = self._slots.followed_by(model.decoder.slots(slots_1PM, first=first + 1))
        rest = all_1TD[:, ends[-1] + 1 :]
        self._open = [rest] if rest.shape[1] else []

    def _predict(self, before_1TD: Tensor, place_1T: Tensor, patch_of_1T: Tensor, *, first: int) -> Tensor:
        """Return the log-probabilities (T, 256) at indices `first`, `first` + 1, ..."""
        visible = None
        if before_1TD.shape[1] > 1:
            numbers_S = torch.arange(self._slots.fresh_BSD.shape[1], device=place_1T.device)
            visible = numbers_S <= patch_of_1T[..., None]
        decoder, caches = self._model.decoder, self._decoder_caches
        state_1TD = decoder(before_1TD, place_1T, patch_of_1T, self._slots, visible, caches, first=first)
        return self._model.head(state_1TD)[0]
