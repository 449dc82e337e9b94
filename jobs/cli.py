"""The command line: words -> command class -> flags (tyro) -> run.

    bytropix ingest bytes | ingest video | append | inspect | preview | verify | convert | convert-video | repatch
    | train bytes | train video | evaluate | score | generate | sample | demo | demo video | bench

A command is a frozen dataclass in `bytropix.jobs.commands`: its fields are the flags, its docstrings the help, and
calling it is the work. It is imported only when it is named, so that help is quick. Errors that are raised on purpose
end in one line on stderr and exit code 2, or 3 where more of the inputs are bad than was allowed.
"""

import difflib
import importlib
import io
import os
import signal
import sys
from collections.abc import Sequence
from typing import Protocol, cast

import tyro

from bytropix.errors import BytropixError, TooManyBadError
from bytropix.version import VERSION

COMMANDS = {
    "ingest bytes": ("ingest:IngestBytes", "turn files and folders into a store of entropy patches"),
    "ingest video": ("ingest_video:IngestVideo", "turn videos into a store of frames, regions and motion"),
    "append": ("append:Append", "add files, folders and URLs to a store, as its next version"),
    "inspect": ("inspect:Inspect", "show what is in a store, with passages cut into patches"),
    "preview": ("preview:Preview", "draw region maps and motion regions into a clip of a video store"),
    "verify": ("verify:Verify", "check every byte of a store and every rule it obeys; mend what is damaged"),
    "convert": ("convert:Convert", "make a store of the same content in another format or codec"),
    "convert-video": ("convert_video:ConvertVideo", "turn videos into H.264 files of one size and frame rate"),
    "repatch": ("repatch:Repatch", "cut a store into other patches, in place"),
    "train bytes": ("train:TrainBytes", "train a byte language model on a store"),
    "train video": ("train_video:TrainVideo", "train a video diffusion model on a store of clips"),
    "evaluate": ("evaluate:Evaluate", "how good a run is on a split, beside plain baselines: bits per byte, or PSNR"),
    "score": ("score:Score", "write the nats of every byte of a file"),
    "generate": ("generate:Generate", "let a trained model write on from a prompt"),
    "sample": ("sample:Sample", "let a trained video model go on from a clip, fill a gap, or begin from nothing"),
    "demo": ("demo:Demo", "the whole line in about four minutes, on sources that are on every machine"),
    "demo video": ("demo_video:DemoVideo", "films that it makes itself to clips and to a model, in about six minutes"),
    "bench": ("bench:Bench", "measure speed and fairness, as ratios against named baselines"),
}
USAGE_ERROR = 2
TOO_MANY_BAD = 3


class Command(Protocol):
    """What `main` needs of a command."""

    def __call__(self) -> int:
        """Do the work and return the exit code."""
        ...


def command_class(name: str) -> type[Command]:
    """Return the class of a command, importing its module."""
    module, attribute = COMMANDS[name][0].split(":")
    return cast(type[Command], getattr(importlib.import_module(f"bytropix.jobs.commands.{module}"), attribute))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    # torch's threads wait for each other by spinning, which on a core they share with another process costs up to
    # six times the work (measured). OpenMP reads this when torch is imported, which is later.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if isinstance(sys.stdout, io.TextIOWrapper):  # models write any character, whatever the terminal's locale
        sys.stdout.reconfigure(encoding="utf-8", errors="replace")
    try:
        return _run(words)
    except BytropixError as error:
        print(f"bytropix: {error}", file=sys.stderr)
        return TOO_MANY_BAD if isinstance(error, TooManyBadError) else USAGE_ERROR
    except KeyboardInterrupt:
        print("bytropix: stopped", file=sys.stderr)
        return 128 + signal.SIGINT
    except BrokenPipeError:  # the reader of our output has gone: nothing is left to say
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + 13


def parse(words: Sequence[str]) -> Command:
    """Return the command that words and flags describe, ready to run.

    Raises:
        BytropixError: A value cannot work.
        SystemExit: Help was asked for (0), or a flag is unknown or malformed (2); tyro has printed why.
    """
    name = _name(words)
    if name is None:
        print(_unknown(words), file=sys.stderr)
        raise SystemExit(USAGE_ERROR)
    rest = list(words[len(name.split()) :])
    kind = command_class(name)
    preset = getattr(kind, "preset", None)
    default = preset(rest) if preset else None
    return cast(Command, tyro.cli(kind, prog=f"bytropix {name}", args=rest, default=default))


def _run(words: list[str]) -> int:
    """Answer help and version, or run a command."""
    if words in (["--version"], ["-V"]):
        print(f"bytropix {VERSION}")
        return 0
    asked = [word for word in words if word not in ("-h", "--help")]
    if _name(words) is None and (len(asked) < len(words) or not asked):
        print(_help(" ".join(asked)))
        return 0
    return parse(words)()


def _name(words: Sequence[str]) -> str | None:
    """Return the command that the first words name."""
    for count in (2, 1):
        name = " ".join(words[:count])
        if name in COMMANDS:
            return name
    return None


def _help(prefix: str) -> str:
    """Return the list of commands that begin with `prefix`."""
    rows = {name: about for name, (_, about) in COMMANDS.items() if name.startswith(prefix)}
    width = max(map(len, rows), default=0)
    lines = [f"  {name:{width}}  {about}" for name, about in rows.items()]
    return "\n".join(
        [
            "usage: bytropix COMMAND [FLAGS]",
            "",
            *lines,
            "",
            "bytropix COMMAND --help explains every flag. --json on a command prints one object on stdout.",
        ]
    )


def _unknown(words: Sequence[str]) -> str:
    """Return one line about a command that does not exist, with the nearest that does."""
    group = [name for name in COMMANDS if words and name.startswith(f"{words[0]} ")]
    asked = " ".join(words[:2]) if group else words[0]
    if group and (len(words) == 1 or words[1].startswith("-")):  # the second word is missing
        near = group
    else:
        near = difflib.get_close_matches(asked, COMMANDS, n=1, cutoff=0.0)
    meant = " or ".join(f"'{name}'" for name in near)
    return f"bytropix: no command '{asked}'; did you mean {meant}? `bytropix --help` lists all"
