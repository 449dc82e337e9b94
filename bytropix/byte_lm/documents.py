"""Which bytes of a row may tell about which others, where it holds several documents.

    documents (B, T) -> where one opens, bytes of it before each byte (B, T), attention among bytes (B, T, T)

What is behind the last document, numbered 0, counts as one more.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Borders:
    """Where the documents of a batch lie; nothing copied to the host."""

    opens_BT: Tensor
    """True where byte t is the first of its document."""
    depth_BT: Tensor
    """Bytes of its document before byte t."""
    visible_BTT: Tensor
    """True where index t may read index u: not behind t, and of the same document."""

    @classmethod
    def of(cls, documents_BT: Tensor) -> "Borders":
        """Return the borders of rows of documents.

        Args:
            documents_BT: Number of each byte's document, any integer type; those of neighbouring documents differ.
        """
        steps_T = torch.arange(documents_BT.shape[1], device=documents_BT.device)
        opens_BT = torch.ones_like(documents_BT, dtype=torch.bool)
        opens_BT[:, 1:] = documents_BT[:, 1:] != documents_BT[:, :-1]
        first_BT = torch.where(opens_BT, steps_T, 0).cummax(1).values
        # A document is a stretch: what lies between its first byte and t is of it.
        visible_BTT = (steps_T >= first_BT[..., None]) & (steps_T <= steps_T[:, None])
        return cls(opens_BT, steps_T - first_BT, visible_BTT)
