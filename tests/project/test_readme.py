"""What the documents tell a reader to type, open or click is there."""

import configparser
import re
import shlex
import tomllib
from pathlib import Path

import pytest

from bytropix.config import from_plain
from bytropix.jobs.cli import COMMANDS, parse
from bytropix.jobs.commands.demo import Demo
from bytropix.jobs.recipe import Recipe

PROJECT = Path(__file__).resolve().parents[2]
DOCUMENTS = [PROJECT / "README.md", PROJECT / "CONTRIBUTING.md", *sorted((PROJECT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```\w*\n(.*?)^```", re.DOTALL | re.MULTILINE)
# Folders of a developer's machine; written so that this file does not name one.
MACHINE_PATH = re.compile(r"/(?:wor[k]|hom[e]|roo[t]|User[s]|mn[t])/\w|[A-Z]:\\\\?User[s]")


def lines_of(kind: str) -> list[tuple[str, str]]:
    """Return (document, line) of every line in a code block, or code span, that begins with the program `kind`."""
    found = []
    for document in DOCUMENTS:
        text = document.read_text("utf-8")
        blocks = "\n".join(FENCE.findall(text)).replace("\\\n", " ")
        spans = re.findall(r"`([^`\n]+)`", FENCE.sub("", text))
        lines = [part.strip() for line in [*blocks.splitlines(), *spans] for part in line.split("&&")]
        found += [(document.name, line.partition("  #")[0]) for line in lines if line.startswith(f"{kind} ")]
    return found


@pytest.mark.parametrize(("document", "line"), lines_of("bytropix"))
def test_commands_parse(document: str, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every command line is one that the program accepts; a span may name a command without its flags."""
    monkeypatch.chdir(PROJECT)
    words = [word for word in shlex.split(line)[1:] if word != "--help"]
    if words and " ".join(words) not in COMMANDS:
        parse(words)


def test_the_readme_shows_commands() -> None:
    """The search above finds what it is for."""
    assert len([line for document, line in lines_of("bytropix") if document == "README.md"]) >= 5
    assert ("README.md", "tox run -e demo") in lines_of("tox")
    assert ("README.md", "tox run") in lines_of("tox")


@pytest.mark.parametrize(("document", "line"), lines_of("tox"))
def test_stages_exist(document: str, line: str) -> None:
    """Every `tox run -e NAME` names an environment of tox.ini."""
    config = configparser.ConfigParser(interpolation=None)
    config.read(PROJECT / "tox.ini", encoding="utf-8")
    stages = {name.removeprefix("testenv:") for name in config.sections()}
    words = shlex.split(line)

    if "-e" in words:
        assert set(words[words.index("-e") + 1].split(",")) <= stages


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_recipes_are_recipes(document: Path) -> None:
    """Every TOML block of a document is a recipe that `train bytes` takes."""
    for block in re.findall(r"^```toml\n(.*?)^```", document.read_text("utf-8"), re.DOTALL | re.MULTILINE):
        from_plain(Recipe, tomllib.loads(block))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_files_that_are_named_exist(document: Path) -> None:
    """A test, source or document that a page names or links to is there."""
    text = document.read_text("utf-8")
    links = [link for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text) if "://" not in link]
    spans = re.findall(r"`((?:tests|docs|jobs|bytropix|datasets|pipelines)/[\w./-]+)`", text)
    missing = [name for name in links if not (document.parent / name).exists()]
    missing += [name for name in spans if not (PROJECT / name).exists()]

    assert missing == []


def test_ci_runs_the_readme_command() -> None:
    """What CI runs is what the README tells a user to run."""
    script = (PROJECT / ".ci" / "run").read_text("utf-8")

    assert script.rstrip().endswith("tox run")


def test_no_file_names_a_machine() -> None:
    """No path of a developer's machine stands in a file."""
    rooms = ("bytropix", "datasets", "docs", "jobs", "pipelines", "tests", ".ci")
    files = [path for path in PROJECT.iterdir() if path.is_file() and path.name != ".git"]
    files += [path for room in rooms for path in (PROJECT / room).rglob("*") if path.is_file()]
    texts = {path: path.read_bytes() for path in files if "__pycache__" not in path.parts}
    named = [path.name for path, text in texts.items() if MACHINE_PATH.search(text.decode("utf-8", "replace"))]

    assert named == []


def test_the_first_command_leaves_the_second_alone() -> None:
    """What the demo writes lies in a folder that git, and so ruff, ignores, and that spelling skips."""
    (top, *_) = Demo().folder.parts
    spelling = tomllib.loads((PROJECT / "pyproject.toml").read_text("utf-8"))["tool"]["codespell"]["skip"]

    assert f"/{top}/" in (PROJECT / ".gitignore").read_text("utf-8").splitlines()
    assert top in spelling.split(",")
