"""Text from a model: the same bytes for the same seed, whole characters, harmless on a terminal."""

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bytropix.jobs.recipe import Recipe, build_model
from bytropix.jobs.run_folder import RunFolder
from bytropix.jobs.writing import harmless, sample_text, whole_characters

pieces = st.lists(st.binary(max_size=6) | st.text(max_size=4).map(lambda text: text.encode("utf-8", "replace")))


@given(pieces.map(b"".join))
def test_characters_come_whole_and_as_soon_as_they_are(data: bytes) -> None:
    """Joined they are what Python decodes; no piece waits for a byte that it does not need, and none is half."""
    shown = ""
    read = bytearray()

    def feed() -> Any:
        for value in data:
            read.append(value)
            yield value

    for piece in whole_characters(feed()):
        shown += piece
        assert bytes(read).decode("utf-8", "replace").startswith(shown)
    assert shown == data.decode("utf-8", "replace")


def test_a_character_is_shown_with_its_last_byte() -> None:
    """Not one byte later: a person at a prompt sees what is there."""
    given = iter("aé海🚢".encode())
    seen = []
    found = whole_characters(value for value in given if not seen.append(value))  # type: ignore[func-returns-value]

    for count, character in zip((1, 3, 6, 10), "aé海🚢", strict=True):
        assert next(found) == character
        assert len(seen) == count


@given(st.text())
def test_no_control_character_reaches_a_terminal(text: str) -> None:
    """Only line ends and tabs stay; all else that is no letter to a terminal becomes a picture."""
    shown = harmless(text)

    assert len(shown) == len(text)
    assert not any((ord(sign) < 0x20 and sign not in "\t\n") or 0x7F <= ord(sign) < 0xA0 for sign in shown)
    assert [sign for sign in text if sign.isprintable()] == [
        shown[place] for place, sign in enumerate(text) if sign.isprintable()
    ]


def test_escape_and_delete_become_pictures() -> None:
    """The bytes that could clear a screen."""
    assert harmless("\x1b[2J\x7f\x9b\r\n\tok") == "␛[2J␡\ufffd␍\n\tok"


def written(cli: Any, run: Path, *flags: object) -> dict[str, Any]:
    """Return what `bytropix generate --json` says."""
    found: dict[str, Any] = cli("generate", "--run", run, "--json", *flags).json()
    return found


def test_the_same_seed_writes_the_same_bytes(cli: Any, trained: Path) -> None:
    """And another seed others."""
    first = written(cli, trained, "--prompt", "the sea", "--max-bytes", 40, "--seed", 3)
    again = written(cli, trained, "--prompt", "the sea", "--max-bytes", 40, "--seed", 3)
    other = written(cli, trained, "--prompt", "the sea", "--max-bytes", 40, "--seed", 4)

    assert first["hex"] == again["hex"] != other["hex"]
    assert first["bytes"] == len(bytes.fromhex(first["hex"])) == 40
    assert first["text"] == bytes.fromhex(first["hex"]).decode("utf-8", "replace")
    assert (first["prompt"], first["seed"]) == ("the sea", 3)


def test_greedy_writing_knows_no_seed_but_the_prompt(cli: Any, trained: Path) -> None:
    """Temperature 0 takes the likeliest byte."""
    words = ("--max-bytes", 12, "--temperature", 0)

    assert written(cli, trained, *words, "--seed", 1)["hex"] == written(cli, trained, *words, "--seed", 2)["hex"]


def test_writing_goes_on_beyond_the_window(cli: Any, trained: Path) -> None:
    """Prompt and text together are longer than the context of 64 bytes."""
    assert written(cli, trained, "--prompt", "calm " * 20, "--max-bytes", 90)["bytes"] == 90


def test_a_stop_string_ends_the_text(cli: Any, trained: Path) -> None:
    """The text ends with the string, where it first stands, though it also stands in the prompt."""
    whole = bytes.fromhex(written(cli, trained, "--prompt", "a", "--max-bytes", 60, "--seed", 5)["hex"])
    place = next(at for at in range(10, 58) if all(32 < byte < 127 and byte != 45 for byte in whole[at : at + 2]))
    stop = whole[place : place + 2].decode()
    flags = ("--max-bytes", 60, "--seed", 5, "--stop", stop, "no such words")
    found = bytes.fromhex(written(cli, trained, "--prompt", "a", *flags)["hex"])

    assert found == whole[: whole.index(stop.encode()) + 2]


def test_text_follows_its_prompt_on_stdout(cli: Any, trained: Path) -> None:
    """Without --json: the prompt, in whatever script, the text, and a line end."""
    flags = ("--prompt", "海は", "--max-bytes", 20, "--seed", 1)
    answer = cli("generate", "--run", trained, *flags)

    assert answer.code == 0
    assert answer.out == "海は" + written(cli, trained, *flags)["text"] + "\n"


def test_a_broken_byte_in_the_prompt_is_kept(trained: Path, program: list[str], environment: dict[str, str]) -> None:
    """An argument that is no UTF-8 arrives as the bytes it is, and stdout takes what is written."""
    if os.name == "nt":
        pytest.skip("arguments are text on Windows")
    words = [*program, "generate", "--run", str(trained), "--max-bytes", "3", "--prompt"]
    done = subprocess.run([*map(os.fsencode, words), b"a\xffb"], env=environment, capture_output=True, check=False)

    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(b"a")


@pytest.mark.parametrize("last", ["quit\n", "exit\n", ""], ids=["quit", "exit", "end"])
def test_interactive_answers_each_line(
    trained: Path, cli: Any, monkeypatch: pytest.MonkeyPatch, last: str, tmp_path: Path
) -> None:
    """Until quit, exit or the end of input; each prompt starts afresh."""
    (tmp_path / "typed").write_text(f"the sea\n海\nthe sea\n{last}", encoding="utf-8")
    with (tmp_path / "typed").open(encoding="utf-8") as typed:
        monkeypatch.setattr("sys.stdin", typed)
        answer = cli("generate", "--run", trained, "--interactive", "--max-bytes", 8, "--temperature", 0)
    parts = answer.out.split("> ")[1:]

    assert answer.code == 0
    assert len(parts) == 4
    assert parts[0] == parts[2]
    assert all(parts[:3])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--max-bytes", 0), "--max-bytes must be at least 1, got 0"),
        (("--temperature", -1), "temperature must be 0 or more"),
        (("--top-k", 257), "top_k"),
        (("--top-p", 0), "top_p"),
        (("--interactive", "--json"), "--interactive asks for its prompts"),
        (("--interactive", "--prompt", "x"), "--interactive asks for its prompts"),
        (("--device", "tpu"), "device"),
    ],
)
def test_flags_that_cannot_work_are_one_line(cli: Any, trained: Path, flags: tuple[object, ...], message: str) -> None:
    """The flag, the value and the rule."""
    assert message in cli("generate", "--run", trained, *flags).refusal()


def test_a_sample_leaves_the_model_and_the_random_state_alone(recipe: Recipe, trained: Path) -> None:
    """What is logged under way does not change what is trained."""
    model = build_model(recipe)
    patcher = RunFolder(trained).patcher()
    for mode in (True, False):
        model.train(mode)
        before = torch.get_rng_state()
        assert sample_text(model, patcher, 64, 12) == sample_text(model, patcher, 64, 12) != ""
        assert all(module.training is mode for module in model.modules())
        assert torch.equal(before, torch.get_rng_state())
