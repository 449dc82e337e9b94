"""The outcomes of the faults as docs/faults.md, beside what was measured of other formats.

tally -> table in Markdown -> page
"""

from collections import Counter

from bytropix.jobs.bench.tally import Outcome, Tally, told
from bytropix.jobs.bench.victim import LAYOUTS

PEERS: dict[str, dict[str, str]] = {
    "webdataset 1.0.2": {
        "one bit flipped in data": "a wrong sample, no error",
        "one bit flipped in a header": "969 of 6,400 samples lost, no error",
        "a file cut short": "339 samples lost, no error (cut between members); else an error",
        "a file missing": "no error where the shards come from a glob",
    },
    "MDS 0.13.0": {
        "one bit flipped in data": "a wrong sample, no error, with hashes switched on too",
        "a file cut short": "IndexError",
        "a file missing": "the loop ends after 14 of 6,400; with two workers it hangs",
    },
    "litdata 0.2.76": {
        "one bit flipped in data": "a wrong sample, no error",
        "a file cut short": "an error that speaks of a hung download",
        "a file missing": "an error after 2 s",
    },
    "zarr 3.1.6": {
        "one bit flipped in data": "a wrong sample, no error",
        "one bit flipped in an index": "an error (crc32c)",
        "a file cut short": "an error (crc32c of the index)",
        "a file missing": "1,024 samples of zeros, no error",
    },
}
_PAGE = """# Faults

What reading a store gives when the store has been harmed. One command remakes this page:

```
bytropix bench faults --faults-page docs/faults.md
```

It makes a small store in each layout, of six parts and three versions, harms it {each} times in each way of the table
and {random} times in random ways at random places, and each time reads everything through `Store` and its parts: every
byte, entropy, start, document end and row, and an epoch of `ByteStream` for one fault in eight. All that comes out is
compared with what was written. So {total} faults were met like this:

TABLE

- **named**: an error in one line, before any wrong byte was given, with the file that was harmed; where a block of a
  part is concerned, also with the place in that file. Of an exchanged manifest it is the first file that does not fit.
- **unused**: in the headers and the padding of a tar, which readers of ours pass by, since the index says where each
  member lies. All bytes given were right; `bytropix verify` names the file and the place.
- **older**: the manifest of version {before} in the place of that of version {newest}. A store looks like that too when
  an append is killed before it publishes, so it is read: as version {before}, whole, and under the fingerprint of that
  version, which runs compare. A manifest older than that is named, since younger ones are kept in `versions/`.
- **random**: a bit flipped, a stretch blanked or written over with one from elsewhere, a byte put in, a file cut,
  grown, gone, exchanged or replaced by another, the manifest torn.

Reading checks a crc32c for each block: it finds every damage within 32 bits, and of any other all but one in 2^32.
`bytropix verify` compares sha256 as well.

## Streams

{streamed} more random faults, each under both policies: an epoch of `ByteStream` is compared, row by row, with that of
the whole store. Streams read texts and starts of one split, so much of a store is nothing to them.

STREAMS

- **named**: as above, before a wrong row was delivered.
- **left out**: rows that touch a damaged block came empty, all others right; the blocks were counted, and a budget of
  one less was exceeded, by an error that names the place. What a store cannot be opened without is never left out.
- **unused**, **older**: the epoch was, byte for byte, that of the whole store, or of its older version.

## Others

The columns on the right are not of this run. They were measured once, on 25 MiB of samples of 4 KiB in seven shards,
read and compared byte for byte. MDS is that of mosaicml-streaming; zarr had no checksum among its codecs. A dash says
that it was not tried.
"""


def page(tally: Tally, streams: dict[str, dict[str, Counter[Outcome]]], *, each: int, random: int, newest: int) -> str:
    """Return the page.

    Args:
        tally: The outcomes.
        streams: Those of streams, by policy and layout.
        each: Faults of each kind.
        random: Random faults.
        newest: The newest version of the stores that were harmed.
    """
    lines = [f"| fault | {' | '.join([*LAYOUTS, *PEERS])} |", "|---" * (1 + len(LAYOUTS) + len(PEERS)) + "|"]
    for kind, found in tally.items():
        ours = [_cell(told(found[layout]) if layout in found else "") for layout in LAYOUTS]
        theirs = [_cell(column.get(kind, "")) for column in PEERS.values()]
        lines.append(f"| {kind} | {' | '.join(ours + theirs)} |")
    policies = [f"| `checks` | {' | '.join(LAYOUTS)} |", "|---" * (1 + len(LAYOUTS)) + "|"]
    for policy, found in streams.items():
        policies.append(f"| {policy} | {' | '.join(told(found[layout]) for layout in LAYOUTS)} |")
    total = sum(counter.total() for found in tally.values() for counter in found.values())
    streamed = sum(counter.total() for counter in next(iter(streams.values())).values())
    text = _PAGE.format(each=each, random=random, total=total, newest=newest, before=newest - 1, streamed=streamed)
    return text.replace("TABLE", "\n".join(lines)).replace("STREAMS", "\n".join(policies))


def _cell(text: str) -> str:
    return text or "-"
