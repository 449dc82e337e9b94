"""What a stream delivers: rows of bytes, their patch starts, and how much of them is data."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

_EIGHT_COPIES = 0x0101010101010101
_BIT_OF_COPY = 0x8040201008040201 - (1 << 64)  # as a signed word


@dataclass(frozen=True, slots=True)
class ByteBatch:
    """One training batch, or one rank's rows of it; width is context + 1.

    Patch starts travel packed, an eighth of their size as flags; `starts` unpacks them where the batch is.

    Attributes:
        bytes: u8 [rows, width]; zeros behind a row's length.
        bits: u8 [rows, 8 * ceil(width / 64)]; bit j of a row, lowest first, is set where a patch opens with its byte j.
            Bit 0 is always set; those behind the row's length are not.
        patches: The largest number of patches that open in the first `context` columns of a row.
        lengths: i64 [rows], bytes of each row that are data: the width but for a split's last window, rows that packed
            documents do not fill, and rows that are empty (0): padding of a short batch, or damaged and left out.
        documents: i16 [rows, width], for packed documents the number of a byte's document in its row, 1, 2, ..., and 0
            behind the data; `None` where documents are not told apart.
        n_bytes: Bytes that are data, in all rows.
        position: Windows that all ranks together were given before this batch: epoch * windows + place in the epoch.
    """

    bytes: Tensor
    bits: Tensor
    patches: int
    lengths: Tensor
    documents: Tensor | None
    n_bytes: int
    position: int

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel, or be saved, without the batches whose memory lies around this one's."""
        documents = None if self.documents is None else self.documents.clone()
        own = self.bytes.clone(), self.bits.clone(), self.patches, self.lengths.clone()
        return ByteBatch, (*own, documents, self.n_bytes, self.position)

    @property
    def starts(self) -> Tensor:
        """The bits as flags, bool [rows, width], unpacked at each call."""
        return unpack_starts(self.bits, self.bytes.shape[1])

    @property
    def rows(self) -> int:
        """Rows, empty ones too."""
        return self.bytes.shape[0]

    @property
    def full(self) -> bool:
        """Whether every byte is data."""
        return self.n_bytes == self.bytes.numel()

    @property
    def data(self) -> Tensor:
        """Which bytes are data, bool [rows, width], made at each call."""
        columns = torch.arange(self.bytes.shape[1], device=self.bytes.device)
        return columns < self.lengths[:, None]

    def to(self, device: torch.device | str) -> "ByteBatch":
        """Return the batch on a device; from pinned memory, the copy does not wait."""
        return self._moved(partial(Tensor.to, device=device, non_blocking=True))

    def pin_memory(self) -> "ByteBatch":
        """Return a copy in pinned memory, as a `DataLoader` asks for."""
        return self._moved(Tensor.pin_memory)

    def _moved(self, move: Callable[[Tensor], Tensor]) -> "ByteBatch":
        documents = None if self.documents is None else move(self.documents)
        return ByteBatch(
            move(self.bytes), move(self.bits), self.patches, move(self.lengths), documents, self.n_bytes, self.position
        )


def unpack_starts(bits: Tensor, width: int) -> Tensor:
    """Return the first `width` bits of each row of u8 [rows, n], lowest first, as bool [rows, width]."""
    # A product puts eight copies of a byte side by side, the mask keeps bit j of copy j: few wide steps, no table.
    spread = (bits.long() * _EIGHT_COPIES).bitwise_and_(_BIT_OF_COPY)
    return spread.view(torch.uint8).bool()[:, :width]
