"""Tars: each regular file in them is a record, and nothing is ever extracted.

stream -> its members, one after another -> the bytes of each, with their place in the raw file
"""

import tarfile
from collections.abc import Iterator
from typing import BinaryIO

from bytropix.datasets.store.tar_walk import WITHOUT_DATA, TarFault, TarWalk
from bytropix.pipelines.sources.records import BLOCK_BYTES, BadRecord, Block, ReadOptions, SourceFault, climbs_out

WITH_DATA = {tarfile.REGTYPE: "", tarfile.AREGTYPE: "", tarfile.CONTTYPE: "", tarfile.GNUTYPE_SPARSE: "a sparse file"}


def read_tar(stream: BinaryIO, options: ReadOptions) -> Iterator[Block | BadRecord]:
    """Give the members of a tar.

    Raises:
        SourceFault: It is no tar, damaged, or cut short; or no member has the wanted field.
    """
    try:
        yield from _members(TarWalk(stream), options)
    except TarFault as fault:
        raise SourceFault(str(fault)) from fault


def _members(tar: TarWalk, options: ReadOptions) -> Iterator[Block | BadRecord]:
    """Give the members that are wanted."""
    fields: set[str] = set()
    found = False
    for member in tar.members():
        field = member.name.rpartition("/")[2].partition(".")[2].lower()
        if options.sample_field and field != options.sample_field.lower():
            if len(fields) < 10:
                fields.add(field)
            continue
        found = True
        reason = _refusal(member)
        if reason:
            yield BadRecord(member.name, reason)
            continue
        left = member.size
        while left:
            place = tar.place
            data = tar.take(min(left, BLOCK_BYTES))
            left -= len(data)
            yield Block(member.name, data, left == 0, place)
    if options.sample_field and not found:
        there = ", ".join(sorted(fields)) or "none"
        raise SourceFault(f"no member KEY.{options.sample_field}; fields there are: {there}")


def _refusal(member: tarfile.TarInfo) -> str:
    """Return why a member is not read, empty if it is."""
    kind = {**WITHOUT_DATA, **WITH_DATA}.get(member.type, f"of unknown type {member.type!r}")
    if kind:
        return kind
    if any(key.startswith("GNU.sparse") for key in member.pax_headers):
        return "a sparse file"
    if climbs_out(member.name):
        return "its path leaves the archive"
    return "" if member.size else "empty"
