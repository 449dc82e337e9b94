"""Reading one window byte by byte (or in chunks) with everything that is past kept in caches.

    push(bytes, starts of the bytes after them) -> byte states (encoder cache)
        -> patches that these bytes close: pooled once, mixed once, nested once, their slots kept for the decoder
        -> log-probabilities of each byte to come (decoder cache)

The figures equal those of the whole window at once (tested to 1e-5): chunks go through the same modules, a byte by
itself through compiled kernels over the same weights, where the model is on a CPU.
"""

from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from bytropix.byte_lm.decoder import Slots
from bytropix.byte_lm.encoder import REACH
from bytropix.byte_lm.layers import KeyValueCache
from bytropix.byte_lm.steps import BlockSteps, DecoderStep, EncoderStep, HeadStep, fits
from bytropix.kernels import array
from bytropix.nesting import StackCache, StackStep, goes_in_steps

if TYPE_CHECKING:
    from bytropix.byte_lm.model import WuBuByteLM


class WuBuSteps:
    """The parts of a WuBuByteLM for one position at a time."""

    def __init__(self, model: "WuBuByteLM", nesting_cache: StackCache) -> None:
        self.encoder = EncoderStep(model.encoder)
        self.nesting = StackStep(model.nesting, nesting_cache.measures) if goes_in_steps(model.nesting) else None
        self.mixer = BlockSteps(model.mixer.blocks, model.mixer.rotary, model.mixer.norm)
        self.decoder = DecoderStep(model.decoder)
        self.head = HeadStep(model.head)


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
        self._slot_caches = [KeyValueCache() for _ in model.decoder.blocks]
        self._nesting_cache = model.nesting.new_cache()
        self._steps = WuBuSteps(model, self._nesting_cache) if fits(model.first_slot) else None
        self._device = model.first_slot.device
        self._recent = bytes(REACH)
        # States of the bytes of the open patch, a piece for each push.
        self._open: list[Tensor] = []
        self._place = 0
        self._closed = 0
        self._fresh_1SD = model.first_slot.new_empty(1, 0, model.decoder.fresh.out_features)
        self._add_slots(model.first_slot.view(1, 1, -1), first=0)
        zero_11 = torch.zeros(1, 1, dtype=torch.long, device=self._device)
        self.log_probs = self._predict(model.decoder.begin.view(1, 1, -1), zero_11, zero_11, first=0)[-1]

    @torch.inference_mode()
    def push(self, values: list[int], next_starts: list[bool]) -> Tensor:
        """Read bytes and return the log-probabilities (n, 256) of the byte after each.

        Args:
            values: n byte values, n at least 1; length + n may reach the model's context at most.
            next_starts: For each byte, whether the byte after it starts a patch.
        """
        if len(values) == 1 and self._steps is not None:
            log_probs = self._step(self._steps, values[0], next_starts=next_starts[0])[None]
        else:
            log_probs = self._read(values, next_starts)
        self.length += len(values)
        self.log_probs = log_probs[-1]
        return log_probs

    @torch.inference_mode()
    def copy(self) -> "WuBuSession":
        """Return a session that goes on from here on its own."""
        twin = object.__new__(WuBuSession)
        twin.__dict__.update(self.__dict__)
        for name in ("_encoder_caches", "_mixer_caches", "_decoder_caches", "_slot_caches"):
            setattr(twin, name, [cache.copy() for cache in getattr(self, name)])
        twin._nesting_cache = self._nesting_cache.copy()
        twin._open = list(self._open)
        return twin

    def _step(self, steps: WuBuSteps, value: int, *, next_starts: bool) -> Tensor:
        """Read one byte by compiled kernels; return the log-probabilities (256,) of the byte after it."""
        nearest = self._recent + bytes((value,))
        state = steps.encoder(nearest, self._place, self._encoder_caches)
        self._recent = nearest[1:]
        self._open.append(torch.from_numpy(state)[None, None])
        self._place += 1
        if next_starts:
            self._close_one(steps)
        fresh = self._fresh_1SD[0, -1].numpy()
        found = steps.decoder(state, self._place, fresh, self._slot_caches, self._decoder_caches)
        return steps.head(found)

    def _close_one(self, steps: WuBuSteps) -> None:
        """Turn the open patch into a memory slot by compiled kernels."""
        vector = steps.encoder.patch_vector(torch.cat(self._open, dim=1)[0].numpy())
        mixed = steps.mixer(vector, self._mixer_caches)
        if steps.nesting is None:
            memory_11M = self._model.nesting(torch.from_numpy(mixed)[None, None], self._nesting_cache)
        else:
            memory_11M = steps.nesting(mixed, self._nesting_cache)
        slot_11M = self._model.memory_norm(memory_11M)
        fresh = steps.decoder.add_slot(array(slot_11M)[0, 0], self._slot_caches)
        self._fresh_1SD = torch.cat([self._fresh_1SD, torch.from_numpy(fresh)[None, None]], dim=1)
        self._open, self._place = [], 0
        self._closed += 1

    def _read(self, values: list[int], next_starts: list[bool]) -> Tensor:
        """Read bytes; return the log-probabilities (n, 256) of the byte after each."""
        places, patches = [self._place], [0]
        for starts in next_starts:
            places.append(0 if starts else places[-1] + 1)
            patches.append(patches[-1] + starts)
        rows = torch.tensor([values, places[:-1], places[1:], patches[:-1], patches[1:]], device=self._device)
        values_1T, place_1T, next_place_1T, patch_1T, next_patch_1T = rows[:, None]
        states_1TD = self._encode(values_1T, place_1T)
        self._recent = (self._recent + bytes(values))[-REACH:]
        before, self._closed = self._closed, self._closed + patches[-1]
        self._close(states_1TD, patch_1T, patches)
        self._place = places[-1]
        return self._predict(states_1TD, next_place_1T, next_patch_1T + before, first=self.length + 1)

    def _encode(self, values_1T: Tensor, place_1T: Tensor) -> Tensor:
        """Return the states of new bytes; n-grams look back into the bytes read before."""
        encoder = self._model.encoder
        recent_1K = torch.tensor([list(self._recent)], device=self._device)
        embedded_1TD = encoder.embed(values_1T, place_1T, recent_1K)
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
        self._add_slots(slots_1PM, first=first + 1)
        rest = all_1TD[:, ends[-1] + 1 :]
        self._open = [rest] if rest.shape[1] else []

    def _add_slots(self, memory_1PM: Tensor, *, first: int) -> None:
        """Keep what bytes read of memory slots `first`, `first` + 1, ..."""
        slots = self._model.decoder.slots(memory_1PM, first=first)
        for cache, keys_values in zip(self._slot_caches, slots.keys_values, strict=True):
            cache.append(*keys_values)
        self._fresh_1SD = torch.cat([self._fresh_1SD, slots.fresh_BSD], dim=1)

    def _predict(self, before_1TD: Tensor, place_1T: Tensor, patch_of_1T: Tensor, *, first: int) -> Tensor:
        """Return the log-probabilities (T, 256) at indices `first`, `first` + 1, ..."""
        visible = None
        if before_1TD.shape[1] > 1:
            numbers_S = torch.arange(self._closed + 1, device=place_1T.device)
            visible = numbers_S <= patch_of_1T[..., None]
        slots = Slots(self._fresh_1SD, [cache.held() for cache in self._slot_caches])
        caches = self._decoder_caches
        state_1TD = self._model.decoder(before_1TD, place_1T, patch_of_1T, slots, visible, caches, first=first)
        return self._model.head(state_1TD)[0]
