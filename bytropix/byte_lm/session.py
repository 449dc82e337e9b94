"""Reading one window byte by byte (or in chunks) with everything that is past kept in caches.

    push(bytes, starts of the bytes after them) -> byte states (encoder cache)
        -> patches that these bytes close: pooled once, mixed once, nested once, their decoder keys kept
        -> log-probabilities of each byte to come (decoder cache)

The figures equal those of the whole window at once (tested to 1e-5): the same modules run on the same values.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from bytropix.byte_lm.layers import KeyValueCache

if TYPE_CHECKING:
    from bytropix.byte_lm.model import WuBuByteLM

NGRAM_REACH = 7  # bytes before a byte that its longest n-gram may hold


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
        device = model.first_slot.device
        self._encoder_caches = [KeyValueCache() for _ in model.encoder.blocks]
        self._mixer_caches = [KeyValueCache() for _ in model.mixer.blocks]
        self._decoder_caches = [KeyValueCache() for _ in model.decoder.blocks]
        self._nesting_cache = model.nesting.new_cache()
        self._recent_1T = torch.zeros(1, 0, dtype=torch.long, device=device)
        self._open_1TD = torch.zeros(1, 0, model.config.encoder.width, device=device)
        self._place = 0
        self._memory_1SM = model.first_slot.view(1, 1, -1)
        self._keys = model.decoder.slot_keys(self._memory_1SM)
        zero = torch.zeros(1, 1, dtype=torch.long, device=device)
        self.log_probs = self._predict(model.decoder.begin.view(1, 1, -1), zero, zero, first=0)[-1]

    @torch.inference_mode()
    def push(self, values: list[int], next_starts: list[bool]) -> Tensor:
        """Read bytes and return the log-probabilities (n, 256) of the byte after each.

        Args:
            values: n byte values; length + n may reach the model's context at most.
            next_starts: For each byte, whether the byte after it starts a patch.
        """
        device = self._recent_1T.device
        places = []
        for starts in next_starts:
            places.append(self._place)
            self._place = 0 if starts else self._place + 1
        states_1TD = self._encode(values, torch.tensor([places], device=device))
        closed_before = self._memory_1SM.shape[1] - 1
        self._close(states_1TD, next_starts)
        patch_of = torch.tensor([next_starts], device=device).long().cumsum(1) + closed_before
        next_places = torch.tensor([[*places[1:], self._place]], device=device)
        log_probs = self._predict(states_1TD, next_places, patch_of, first=self.length + 1)
        self.length += len(values)
        self.log_probs = log_probs[-1]
        return log_probs

    def copy(self) -> "WuBuSession":
        """Return a session that goes on from here on its own."""
        twin = object.__new__(WuBuSession)
        twin.__dict__.update(self.__dict__)
        for name in ("_encoder_caches", "_mixer_caches", "_decoder_caches"):
            setattr(twin, name, [cache.copy() for cache in getattr(self, name)])
        twin._nesting_cache = self._nesting_cache.copy()
        return twin

    def _encode(self, values: list[int], places_1T: Tensor) -> Tensor:
        """Return the states of new bytes; n-grams look back into the bytes read before."""
        encoder = self._model.encoder
        new_1T = torch.tensor([values], dtype=torch.long, device=places_1T.device)
        both_1T = torch.cat([self._recent_1T, new_1T], dim=1)
        past = self._recent_1T.shape[1]
        lead_1T = torch.zeros(1, past, dtype=torch.long, device=new_1T.device)
        embedded = encoder.embed(both_1T, torch.cat([lead_1T, places_1T], dim=1))[:, past:]
        self._recent_1T = both_1T[:, -NGRAM_REACH:]
        return encoder.run(embedded, self._encoder_caches, first=self.length)

    def _close(self, states_1TD: Tensor, next_starts: list[bool]) -> None:
        """Turn every patch that ends among the new bytes into a memory slot."""
        model = self._model
        open_1TD = torch.cat([self._open_1TD, states_1TD], dim=1)
        ends = [self._open_1TD.shape[1] + index for index, starts in enumerate(next_starts) if starts]
        self._open_1TD = open_1TD[:, ends[-1] + 1 :] if ends else open_1TD
        if not ends:
            return
        steps_T = torch.arange(open_1TD.shape[1], device=open_1TD.device)
        last_1P = torch.tensor([ends], device=open_1TD.device)
        first_1P = torch.tensor([[0, *(end + 1 for end in ends[:-1])]], device=open_1TD.device)
        inside_1PT = (steps_T >= first_1P[..., None]) & (steps_T <= last_1P[..., None])
        vectors_1PM = model.encoder.patch_vectors(open_1TD, last_1P, inside_1PT)
        count = self._memory_1SM.shape[1]
        mixed_1PM = model.mixer(vectors_1PM, self._mixer_caches, first=count - 1)
        slots_1PM = model.memory_norm(model.nesting(mixed_1PM, self._nesting_cache))
        self._memory_1SM = torch.cat([self._memory_1SM, slots_1PM], dim=1)
        fresh = model.decoder.slot_keys(slots_1PM, first=count)
        self._keys = [
            (torch.cat([old_k, new_k], dim=2), torch.cat([old_v, new_v], dim=2))
            for (old_k, old_v), (new_k, new_v) in zip(self._keys, fresh, strict=True)
        ]

    def _predict(self, before_1TD: Tensor, place_1T: Tensor, patch_of_1T: Tensor, *, first: int) -> Tensor:
        """Return the log-probabilities (T, 256) at indices `first`, `first` + 1, ..."""
        visible = None
        if before_1TD.shape[1] > 1:
            slots_S = torch.arange(self._memory_1SM.shape[1], device=place_1T.device)
            visible = slots_S <= patch_of_1T[..., None]
        state = self._model.decoder(
            before_1TD,
            place_1T,
            patch_of_1T,
            self._memory_1SM,
            self._keys,
            visible,
            self._decoder_caches,
            first=first,
        )
        return self._model.head(state)[0]
