"""The command line: one subcommand per job.

    bytropix ingest bytes | inspect | train bytes | evaluate | score | generate | demo | bench

Every command is a frozen dataclass whose fields are its flags and whose docstrings are its help; `run` does the work.
Errors that are raised on purpose end in one line and exit code 2.
"""

import sys
from typing import Annotated, Any

import tyro

from bytropix.errors import BytropixError
from bytropix.jobs.ingest import IngestBytes

Ingest = Annotated[
    Annotated[IngestBytes, tyro.conf.subcommand("bytes")] | Annotated[None, tyro.conf.subcommand("nothing")],
    tyro.conf.subcommand("ingest", description="Turn raw sources into a store."),
]


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    commands: dict[str, Any] = {"ingest bytes": IngestBytes}
    try:
        return int(tyro.extras.subcommand_cli_from_dict(commands, args=arguments).run())
    except BytropixError as error:
        print(f"bytropix: {error}", file=sys.stderr)
        return 2
