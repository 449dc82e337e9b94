"""The command line: words find commands, help is quick and whole, errors are one line."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from bytropix import errors
from bytropix.errors import BytropixError
from bytropix.jobs import cli as module
from bytropix.jobs.cli import COMMANDS, command_class
from bytropix.version import VERSION


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"]])
def test_help_lists_every_command_with_what_it_does(cli: Any, words: list[str]) -> None:
    """Asked nothing, or for help, the program tells all it can do."""
    answer = cli(*words)

    assert (answer.code, answer.err) == (0, "")
    for name, (_, about) in COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(about)}$", answer.out, re.MULTILINE)


def test_help_of_a_first_word_lists_its_commands(cli: Any) -> None:
    """`bytropix train --help` lists the kinds of training."""
    answer = cli("train", "--help")

    assert answer.code == 0
    assert "train bytes" in answer.out
    assert "evaluate" not in answer.out


@pytest.mark.parametrize("flag", ["--version", "-V"])
def test_version(cli: Any, flag: str) -> None:
    """The version is the package's, alone on its line."""
    answer = cli(flag)

    assert (answer.code, answer.out, answer.err) == (0, f"bytropix {VERSION}\n", "")


def test_a_flag_without_its_value_names_the_command(cli: Any) -> None:
    """Also where the run and its recipe are looked for ahead of all other flags."""
    answer = cli("train", "bytes", "--store", "a.bx", "--run")

    assert answer.code == 2
    assert "usage: bytropix train bytes" in answer.err


@pytest.mark.parametrize(
    ("words", "near"),
    [
        (["evalute", "--run", "x"], "evaluate"),
        (["inspct"], "inspect"),
        (["train", "byte"], "train bytes"),
        (["train"], "train bytes' or 'train video"),
        (["ingest", "--out", "x.bx"], "ingest bytes' or 'ingest video"),
        (["--json"], None),
        ([""], None),
    ],
)
def test_an_unknown_command_is_answered_with_the_nearest(cli: Any, words: list[str], near: str | None) -> None:
    """One line, exit code 2, and what was probably meant."""
    line = cli(*words).refusal()

    assert f"no command '{words[0]}" in line
    assert "did you mean '" in line
    assert near is None or f"did you mean '{near}'?" in line


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_each_of_its_flags(cli: Any, name: str) -> None:
    """Help ends with 0, says what the command is for, and leaves no flag without a word of its own."""
    answer = cli(*name.split(), "--help")
    about = (command_class(name).__doc__ or "").splitlines()[0]
    boxed = "\n".join(line.strip("│").rstrip() for line in answer.out.splitlines() if line.startswith("│"))

    assert (answer.code, answer.err) == (0, "")
    assert about in answer.out
    rows = re.split(r"(?<!,)\n (?=--)", f"\n{boxed}")[1:]  # a long flag and its --no- form stand on two lines
    assert len(rows) >= 3
    for row in rows:
        said = re.sub(r"--?[\w.-]+|\{[^}]*\}|\b[A-Z]+\b|\((default|required).*", "", row, flags=re.DOTALL)
        assert re.search(r"[a-z]{3,}", said), f"no help: {row}"


OTHERS = (errors.ChangedSourceError, errors.TooManyBadError)


@pytest.mark.parametrize(
    "kind",
    [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, BytropixError) and kind not in OTHERS
    ],
)
def test_errors_raised_on_purpose_end_in_one_line_and_code_2(
    cli: Any, kind: type[BytropixError], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever command raises them; there is no trace."""

    def fail(words: list[str]) -> int:
        raise kind("x.bx: damaged; ingest again")

    monkeypatch.setattr(module, "_run", fail)

    assert cli("inspect", "x.bx").refusal() == "bytropix: x.bx: damaged; ingest again"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.ChangedSourceError("a.txt", "changed while it was read"), 2),
        (errors.TooManyBadError("9 of 10 files are bad"), 3),
    ],
)
def test_errors_about_sources(cli: Any, error: BytropixError, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A source that changed ends as any error does; too many bad ones have an exit code of their own."""

    def fail(words: list[str]) -> int:
        raise error

    monkeypatch.setattr(module, "_run", fail)
    answer = cli("inspect", "x.bx")

    assert (answer.code, answer.out, answer.err) == (code, "", f"bytropix: {error}\n")


def test_a_fault_of_ours_is_not_hidden(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error that nobody raised on purpose keeps its trace."""

    def fail(words: list[str]) -> int:
        raise ZeroDivisionError

    monkeypatch.setattr(module, "_run", fail)

    with pytest.raises(ZeroDivisionError):
        cli("inspect", "x.bx")


def test_ctrl_c_is_one_line(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopping a command is no error of it."""

    def stop(words: list[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "_run", stop)
    answer = cli("inspect", "x.bx")

    assert (answer.code, answer.out, answer.err) == (130, "", "bytropix: stopped\n")


def test_an_unknown_flag_ends_with_2(cli: Any, trained: Path) -> None:
    """And tells which one it was."""
    answer = cli("evaluate", "--run", trained, "--stor", "x")

    assert answer.code == 2
    assert "--stor" in answer.err
    assert "Traceback" not in answer.err


def test_json_is_one_object_on_stdout_and_nothing_else(
    cli: Any, trained: Path, store_path: Path, sources: Path, tmp_path: Path
) -> None:
    """Progress and words for people go to stderr."""
    file = sources / "00.txt"
    commands = {
        "evaluate": ("--run", trained, "--store", store_path),
        "score": (file, "--run", trained, "--out", tmp_path / "nats.npy"),
        "generate": ("--run", trained, "--max-bytes", 5),
        "inspect": (store_path,),
        "ingest bytes": (sources, "--out", tmp_path / "one.bx", "--workers", 1),
    }
    for name, words in commands.items():
        answer = cli(*name.split(), *words, "--json")
        assert answer.code == 0, answer.err
        assert answer.out.count("\n") == 1, name
        assert isinstance(json.loads(answer.out), dict)


def test_help_imports_neither_torch_nor_numba(program: list[str], environment: dict[str, str]) -> None:
    """The first answer of the program is quick."""
    code = (
        "import sys\n"
        "from bytropix.jobs.cli import main\n"
        "assert main(['--help']) == 0 and main(['--version']) == 0\n"
        "heavy = {'torch', 'numba', 'zarr', 'tensorboard'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)\n"
    )
    done = subprocess.run([program[0], "-c", code], env=environment, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (0, "")
    assert "usage: bytropix" in done.stdout
