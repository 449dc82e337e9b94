"""Nonsense by seed: plain data with something wrong somewhere, and bytes with a few edits.

plain data -> one to three of: another value, a key or item gone, one added, two exchanged -> plain data
"""

import copy
import random
from typing import Any

HUGE = 10**30
VALUES: tuple[Any, ...] = (
    *(None, True, False, -1, 0, 1, 2, 7, 2**31, 2**62, 2**63 - 1, 2**64, HUGE, -HUGE, 0.5, 1e308, float("nan")),
    *(float("inf"), float("-inf"), "", " ", ".", "..", "../../etc/passwd", "/etc/passwd", "a//b", "C:\\x", "a\0b"),
    *(
        "\ud800",
        "x" * 5000,
        "x" * 300 + "/" + "y" * 300,
        "zstd",
        "none",
        "zarr",
        "webdataset",
        "train",
        "val",
        "é" * 200,
    ),
    *([], {}, [[]], [None], {"": None}, {"name": "zstd"}, [2**62], [-1], ["x"] * 50, "00000.zarr", "00000.tar"),
    *("uint8", "int64", "float64", "manifest.json", "bytes/c/0", "%s{}{0}", "\n", "0" * 64),
)
DEEP = 100, 300
TEXTS = (
    b"NaN",
    b"Infinity",
    b"1" * 5000,
    b"{",
    b"]",
    b'"',
    b"\\ud800",
    b"\xff\xfe",
    b"\0",
    b"null",
    b"-",
    b"1e999",
    b"[" * 3000,
)


def changed(plain: Any, chance: random.Random) -> Any:
    """Return a copy of nested dicts, lists and scalars with one to three things wrong."""
    plain = copy.deepcopy(plain)
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        holder, key = _place(plain, chance)
        if holder is None:
            return value(chance)
        what = chance.randrange(8)
        if what < 5:
            holder[key] = value(chance)
        elif what == 5:
            del holder[key]
        elif what == 6 and isinstance(holder, dict):
            holder[chance.choice(("", "x", "size", "path", "format", str(key) * 2))] = value(chance)
        elif isinstance(holder, list):
            holder.insert(key, copy.deepcopy(chance.choice(holder)))
        else:
            other, there = _place(plain, chance)
            if other is not None:
                holder[key], other[there] = copy.deepcopy(other[there]), copy.deepcopy(holder[key])
    return plain


def value(chance: random.Random) -> Any:
    """Return a value that nobody expects."""
    if chance.random() < 0.05:
        found: Any = 0
        for _ in range(chance.choice(DEEP)):
            found = [found]
        return found
    if chance.random() < 0.2:
        return chance.randrange(-(2**40), 2**40)
    return copy.deepcopy(chance.choice(VALUES))


def edited(data: bytes, chance: random.Random) -> bytes:
    """Return bytes with one to three edits."""
    out = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 3))):
        place = chance.randrange(len(out) + 1)
        what = chance.randrange(6)
        if what == 0 and out:
            out[place - 1] ^= 1 << chance.randrange(8)
        elif what == 1:
            del out[place:]
        elif what == 2:
            del out[place : place + chance.choice((1, 8, 100))]
        elif what == 3:
            out[place:place] = chance.choice(TEXTS)
        elif what == 4:
            new = chance.choice(TEXTS)
            out[place : place + len(new)] = new
        else:
            out[place:place] = out[place // 2 : place // 2 + chance.choice((1, 8, 100))]
    return bytes(out)


def _place(plain: Any, chance: random.Random) -> tuple[Any, Any]:
    """Return a dict or list somewhere in `plain` and a key or index of it, drawn level by level."""
    holder, key = None, None
    while isinstance(plain, dict | list) and plain and (holder is None or chance.random() < 0.85):
        holder = plain
        key = chance.choice(list(plain)) if isinstance(plain, dict) else chance.randrange(len(plain))
        plain = holder[key]
    return holder, key
