"""Counting the patches of a part again, source by source.

starts, doc_ends, spans of the record -> spans with their counts made anew, patches by length
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from bytropix.datasets.store import SourceSpan
from bytropix.datasets.store.patch_lengths import LONGEST, count_lengths


def recount(
    starts: NDArray[np.bool_], doc_ends: NDArray[np.int64], spans: tuple[SourceSpan, ...], cap: int
) -> tuple[tuple[SourceSpan, ...], tuple[int, ...]]:
    """Return spans of as many documents with bytes and patches counted, and how many patches have 0, 1, 2 ... bytes.

    Args:
        starts: Where patches start, bool[n]; the first byte of each document does.
        doc_ends: End of each document, i64[d].
        spans: Which documents come from where, d in all.
        cap: Greatest length of a patch, apart from the rest of a character.
    """
    counted = []
    total = np.zeros(LONGEST + 1, np.int64)
    number = begin = 0
    for span in spans:
        number += span.documents
        end = int(doc_ends[number - 1])
        lengths = count_lengths(starts, begin, end)
        total += lengths
        counted.append(
            replace(
                span,
                n_bytes=end - begin,
                patches=int(lengths.sum()),
                at_cap=int(lengths[cap:].sum()),
                single=int(lengths[1]),
            )
        )
        begin = end
    return tuple(counted), tuple(np.trim_zeros(total, "b").tolist())
