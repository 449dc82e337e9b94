"""Which patch a byte belongs to, and which patches a prediction may see.

    starts (B, T) -> patch of each byte, place in it (B, T), last bytes of patches (B, P), visible slots (B, T, S)
    borders of documents -> of these, what lies in the same document

Index i stands for "predict byte i from the bytes before it". Whether byte i starts a patch is decided from the bytes
before i, so at index i every patch with a smaller number is closed and known: slot 0 of the memory is a learned
vector, slot k + 1 is patch k, and index i may read the slots up to patch_of(i), slot 0 and those of its document.
"""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from bytropix.byte_lm.documents import Borders


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
    freshest_BT: Tensor
    """The last slot that index t may read."""
    number_BT: Tensor
    """The same, counted in the document of byte t."""
    number_BS: Tensor | None = None
    """Number of slot s, counted in its document; None: s, since there is one document."""
    visible_BPP: Tensor | None = None
    """True where patch p may see patch q: not behind p, and of the same document; None: there is one document."""


def lay_out(starts_BT: Tensor, patches: int, borders: Borders | None = None) -> PatchLayout:
    """Return the layout of a batch.

    Args:
        starts_BT: True where a byte starts a patch: in the first column, and where a document opens.
        patches: At least the most closed patches of a row.
        borders: Where documents lie, if a row holds several.
    """
    length = starts_BT.shape[1]
    steps_T = torch.arange(length, device=starts_BT.device)
    patch_of_BT = starts_BT.long().cumsum(1) - 1
    start_BT = torch.where(starts_BT, steps_T, 0).cummax(1).values
    numbers_P = torch.arange(patches, device=starts_BT.device)
    wanted_BP = numbers_P.expand(starts_BT.shape[0], patches).contiguous()
    last_BP = torch.searchsorted(patch_of_BT, wanted_BP, right=True).sub(1).clamp_min(0)
    slots_S = torch.arange(patches + 1, device=starts_BT.device)
    freshest_BT = patch_of_BT.clamp_max(patches)
    layout = PatchLayout(
        patch_of_BT=patch_of_BT,
        place_BT=steps_T - start_BT,
        last_BP=last_BP,
        visible_BTS=slots_S <= patch_of_BT[..., None],
        freshest_BT=freshest_BT,
        number_BT=freshest_BT,
    )
    return layout if borders is None else _within(layout, borders, slots_S)


def _within(layout: PatchLayout, borders: Borders, slots_S: Tensor) -> PatchLayout:
    """Return a layout of documents that see nothing of each other."""
    first_BT = torch.where(borders.opens_BT, layout.patch_of_BT, 0).cummax(1).values
    first_BP = first_BT.gather(1, layout.last_BP)
    number_BT = layout.freshest_BT - first_BT
    in_reach_BTS = (slots_S > first_BT[..., None]) | (slots_S == 0)
    causal_PP = slots_S[:-1] <= slots_S[:-1, None]
    return replace(
        layout,
        visible_BTS=layout.visible_BTS & in_reach_BTS,
        freshest_BT=torch.where(number_BT > 0, layout.freshest_BT, 0),
        number_BT=number_BT,
        number_BS=F.pad(slots_S[1:] - first_BP, (1, 0)),
        visible_BPP=causal_PP & (first_BP[:, None] == first_BP[..., None]),
    )
