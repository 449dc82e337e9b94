"""The benchmark of faults: stores are harmed and read through their parts, and through streams.

stores -> faults -> outcomes (`fault_table`, `stream_faults`) -> rows, and a page with tables
"""

from bytropix.jobs.bench.fault_table import harm
from bytropix.jobs.bench.faults_page import page
from bytropix.jobs.bench.rows import BenchRow, BenchSettings
from bytropix.jobs.bench.stream_faults import harm_streams
from bytropix.jobs.bench.tally import rows_of
from bytropix.jobs.bench.victim import VERSIONS

EACH, RANDOM = 40, 1000
STREAMED = 334  # a layout: a thousand in all


def bench_faults(settings: BenchSettings) -> list[BenchRow]:
    """Harm a store of each layout, 40 times in each way and 1000 times at random, and streams a thousand times.

    Write the page if it is asked for.
    """
    tally, failures = harm(settings.folder / "parts", each=EACH, random=RANDOM)
    raised, left_out, more = harm_streams(settings.folder / "streams", each=0, random=STREAMED)
    streams = {"raise": raised["random"], "quarantine": left_out["random"]}
    if settings.faults_page is not None:
        text = page(tally, streams, each=EACH, random=RANDOM, newest=VERSIONS)
        settings.faults_page.write_text(text, encoding="utf-8")
    return rows_of(tally | {f"streams, {checks}": found for checks, found in streams.items()}, failures + more)
