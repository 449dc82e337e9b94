"""`bytropix verify`: whether a store is whole, and what to do if not.

store -> verify, with a progress bar -> one line on stdout, then a line for each fault; exit code 0 whole, 1 damaged
"""

import json
import sys
import time
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Annotated, Any

import tyro

from bytropix.errors import ConfigError
from bytropix.jobs.progress import stage_bars
from bytropix.jobs.store_report import printable
from bytropix.jobs.working import Working
from bytropix.pipelines.tools.part_check import Fault
from bytropix.pipelines.tools.repair import repair
from bytropix.pipelines.tools.verify import Verified, verify

DAMAGED = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Verify:
    """Check a store: every file against the manifest, and every rule that its content obeys."""

    store: tyro.conf.Positional[str]
    """The store, a folder or a URL."""
    version: int | None = None
    """Check this version alone; all that are kept by default."""
    hashes: bool = False
    """Only hash the files: several times faster, and enough to find damage of any kind."""
    repair: bool = False
    """Mend what is damaged, from what is left of the store or else from its sources; nothing is put in place but the
    very bytes that were recorded."""
    sources: tuple[str, ...] = ()
    """For --repair: what the store was made of and what was appended; by default what this machine remembers of it."""
    copies: tuple[str, ...] = ()
    """For --repair: other places where this store lies; damaged files are taken from there first, if they are whole."""
    working: Annotated[Working, tyro.conf.OmitArgPrefixes] = field(default_factory=Working)
    """Who does the work."""
    json: bool = False
    """Print one JSON object on stdout and nothing else."""

    def __call__(self) -> int:
        """Check the store and say what is wrong."""
        begin = time.perf_counter()
        if self.repair and self.version is not None:
            raise ConfigError("--repair mends every version that is kept; leave --version out")
        with stage_bars() as progress, self.working.runner(self.store) as runner:
            check = partial(
                verify, self.store, runner, version=self.version, hashes_only=self.hashes, progress=progress
            )
            verified, mended = check(), None
            if self.repair and verified.faults:
                mended = repair(verified, runner, sources=self.sources, copies=self.copies, progress=progress)
                verified = check()
        seconds = time.perf_counter() - begin
        if self.json:
            report = _report(verified, seconds) | ({"mended": asdict(mended)} if mended else {})
            print(json.dumps(report, sort_keys=True))
        else:
            print("\n".join(_lines(verified, seconds)))
            for how, places in asdict(mended).items() if mended else ():
                for place in places:
                    print(f"mended {how.replace('_', ' ')}: {printable(place)}", file=sys.stderr)
            for warning in verified.warnings:
                print(f"warning: {printable(warning)}", file=sys.stderr)
        return DAMAGED if verified.faults else 0


def _report(verified: Verified, seconds: float) -> dict[str, Any]:
    """Return what was found as plain data."""
    return {
        "store": verified.url,
        "whole": not verified.faults,
        "versions": [manifest.version for manifest in verified.manifests],
        "parts": sum(len(manifest.parts) for manifest in verified.manifests[:1]),
        "faults": [asdict(fault) for fault in verified.faults],
        "warnings": list(verified.warnings),
        "bytes_hashed": verified.n_bytes,
        "hash_mb_per_second": round(verified.n_bytes / 1e6 / max(verified.hash_seconds, 1e-9), 1),
        "seconds": round(seconds, 3),
        "mb_per_second": round(verified.n_bytes / 1e6 / seconds, 1),
    }


def _lines(verified: Verified, seconds: float) -> list[str]:
    """Return the report for people."""
    rate = verified.n_bytes / 1e6 / max(verified.hash_seconds, 1e-9)
    versions = f"{len(verified.manifests)} version{'s' if len(verified.manifests) != 1 else ''}"
    parts = sum(len(manifest.parts) for manifest in verified.manifests[:1])
    time_line = (
        f"{verified.n_bytes:,} bytes of {parts:,} parts, {versions}, in {seconds:.1f} s; "
        f"hashed at {rate:,.0f} MB/s a worker"
    )
    if not verified.faults:
        return [f"{printable(verified.url)}: whole", time_line]
    named = list(dict.fromkeys(fault.file or fault.part or "manifest.json" for fault in verified.faults))
    return [
        f"{printable(verified.url)}: damaged: {', '.join(map(printable, named))}",
        *map(_line, verified.faults),
        time_line,
    ]


def _line(fault: Fault) -> str:
    """Return a fault for people."""
    place = fault.file or fault.part or "manifest.json"
    at = "" if fault.offset is None else f" at byte {fault.offset:,}"
    return printable(f"{place}{at}: {fault.fault}")
