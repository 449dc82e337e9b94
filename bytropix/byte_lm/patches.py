"""Which patch a byte belongs to, and which patches a prediction may see.

    starts (B, T) -> patch of each byte, place in it (B, T), last bytes of patches (B, P), visible slots (B, T, S)

Index i stands for "predict byte i from the bytes before it". Whether byte i starts a patch is decided from the bytes
before i, so at index i every patch with a smaller number is closed and known: slot 0 of the memory is a learned
vector, slot k + 1 is patch k, and index i may read the slots up to patch_of(i).
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class PatchLayout:
    """Where the patches of a batch lie; all tensors int64 or bool, nothing copied to the host."""

    patch_of_BT: Tensor
    """Number of the patch that holds byte t."""
    place_BT: Tensor
    """Bytes between byte t and the start of its patch."""
    last_BP: Tensor
    """Last byte of patch p, clipped to the window for numbers that a row does not use."""
    visible_BTS: Tensor
    """True where index t may read slot s, S = P + 1."""


def lay_out(starts_BT: Tensor, patches: int) -> PatchLayout:
    """Return the layout of `starts_BT` (bool, first column True) for at most `patches` closed patches a row."""
    length = starts_BT.shape[1]
    steps_T = torch.arange(length, device=starts_BT.device)
    patch_of_BT = starts_BT.long().cumsum(1) - 1
    start_BT = torch.where(starts_BT, steps_T, 0).cummax(1).values
    numbers_P = torch.arange(patches, device=starts_BT.device)
    wanted_BP = numbers_P.expand(starts_BT.shape[0], patches).contiguous()
    last_BP = torch.searchsorted(patch_of_BT, wanted_BP, right=True).sub(1).clamp_min(0)
    slots_S = torch.arange(patches + 1, device=starts_BT.device)
    return PatchLayout(
        patch_of_BT=patch_of_BT,
        place_BT=steps_T - start_BT,
        last_BP=last_BP,
        visible_BTS=slots_S <= patch_of_BT[..., None],
    )
