"""Training on several stores through the command line: shares, stages, resuming, and what is refused."""

import json
import math
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from bytropix.datasets.mixture import Mixture, Stage
from bytropix.datasets.store import Store
from bytropix.errors import ConfigError
from bytropix.jobs.cli import parse
from bytropix.jobs.commands.train import TrainBytes
from bytropix.jobs.recipe import Recipe, TrainConfig
from bytropix.jobs.run_folder import RunFolder
from bytropix.jobs.source import facts_of, names_of, open_source, read_place, read_stage
from bytropix.pipelines.config import IngestConfig
from bytropix.pipelines.ingest import ingest_bytes

QUICK = ("--train.evaluate-every", 0, "--train.sample-bytes", 0, "--train.evaluate-bytes", 256, "--train.log-every", 2)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of numbers, smaller than that of words, with a table of its own; do not change it."""
    folder = tmp_path_factory.mktemp("digits")
    (folder / "sources").mkdir()
    for number in range(8):
        text = " ".join(str(value * value) for value in range(number * 100, number * 100 + 300))
        (folder / "sources" / f"{number}.txt").write_text(text)
    ingest_bytes([folder / "sources"], folder / "digits.bx", IngestConfig(val_fraction=0.3, document_bytes=4096))
    return folder / "digits.bx"


@pytest.fixture
def words(store_path: Path, digits: Path, tiny: Path) -> Any:
    """The words of a command that trains the tiny model in a run folder on both stores, 3 to 1."""

    def line(run: Path, *more: object, weights: tuple[object, object] = (":3", ":1")) -> list[object]:
        stores = ("--store", f"{store_path}{weights[0]}", "--store", f"{digits}{weights[1]}")
        recipe = () if "--resume" in more and run.exists() else ("--recipe", tiny, *QUICK)
        return ["train", "bytes", *stores, "--run", run, *recipe, *more]

    return line


def losses(run: Path) -> list[float]:
    """Return the loss of each step."""
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text("utf-8").splitlines()]
    found = [row for row in rows if row["event"] == "step"]
    assert [row["step"] for row in found] == list(range(1, len(found) + 1))
    return [row["loss_nats"] for row in found]


def curve(run: Path, tag: str) -> dict[int, float]:
    """Return the points of a curve as TensorBoard reads them."""
    return {point.step: point.value for point in EventAccumulator(str(run)).Reload().Scalars(tag)}


def test_shares_and_epochs_of_each_store_are_logged(cli: Any, words: Any, tmp_path: Path, digits: Path) -> None:
    """Shares of the windows since the last row, epochs from the beginning; the stage at step 24 shows."""
    run = tmp_path / "run"
    flags = ("--train.steps", 48, "--train.log-every", 24, "--train.batch", 4, "--curriculum", "24:0,1")
    answer = cli(*words(run, *flags))

    assert answer.code == 0, answer.err
    assert "digits.bx was cut into patches with another entropy table" in answer.err
    assert curve(run, "mixture/small.bx/share") == {24: 0.75, 48: 0.0}
    assert curve(run, "mixture/digits.bx/share") == {24: 0.25, 48: 1.0}
    windows = -(-sum(part.n_bytes for part in Store.open(digits).parts("train")) // 65)
    assert curve(run, "mixture/digits.bx/epochs") == pytest.approx({24: 24 / windows, 48: 120 / windows})
    together = curve(run, "eval/bits_per_byte")[48]
    each = [curve(run, f"eval/{name}/bits_per_byte")[48] for name in ("small.bx", "digits.bx")]
    assert min(each) < together < max(each)
    kept = json.loads((run / "store.json").read_text())
    assert kept["name"] == "small.bx"
    assert kept["mixture"]["step_windows"] == 4
    assert [(row["name"], row["weight"]) for row in kept["mixture"]["stores"]] == [("small.bx", 3), ("digits.bx", 1)]
    assert kept["mixture"]["stages"] == [{"start": 96, "weights": [0, 1]}]
    assert RunFolder(run).step_windows() == 4


def test_a_resumed_mixture_goes_on_as_if_never_stopped(cli: Any, words: Any, tmp_path: Path) -> None:
    """Gone on from before and from behind a stage, which is added ahead; weights may be written otherwise."""
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    stage = ("--curriculum", "6:1,3")
    often = ("--train.steps", 12, "--train.checkpoint-every", 4)
    assert cli(*words(straight, *stage, *often)).code == 0
    assert cli(*words(broken, *often)).code == 0
    assert losses(broken)[:6] == losses(straight)[:6]
    assert losses(broken)[6:] != losses(straight)[6:]
    for kept in (1, 2):
        for checkpoint in RunFolder(broken).checkpoints()[kept:]:
            shutil.rmtree(checkpoint)
        assert cli(*words(broken, *stage, "--resume", weights=(":0.75", ":0.25"))).code == 0
        assert losses(broken) == losses(straight)


def test_stages_stay_where_they_are_when_the_batch_changes(cli: Any, words: Any, tmp_path: Path) -> None:
    """Steps of --curriculum go on counting the windows of the first batch, and the command says so."""
    run = tmp_path / "run"
    stage = ("--curriculum", "3:1,3")
    assert cli(*words(run, *stage, "--train.steps", 4)).code == 0
    answer = cli(*words(run, *stage, "--train.steps", 5, "--train.batch", 4, "--resume"))

    assert answer.code == 0, answer.err
    assert "a step has 4 windows now, but --curriculum goes on counting steps of 2 windows" in answer.err


@pytest.mark.parametrize(
    ("weights", "flags"),
    [((":3", ":2"), ()), (("", ""), ()), ((":3", ":1"), ("--curriculum", "3:1,1"))],
    ids=["weights", "sizes", "a stage in the past"],
)
def test_another_mixture_is_not_resumed(
    cli: Any, words: Any, tmp_path: Path, weights: tuple[str, str], flags: tuple[object, ...]
) -> None:
    """The windows read so far would have been others."""
    run = tmp_path / "run"
    assert cli(*words(run, "--train.steps", 4)).code == 0
    log = (run / "log.jsonl").read_bytes()
    line = last_line(cli(*words(run, *flags, "--train.steps", 6, "--resume", weights=weights)))

    assert "small.bx" in line
    assert "digits.bx" in line
    assert "use the store, or stores, weights and begun stages of a mixture, that it was taken with" in line
    assert (run / "log.jsonl").read_bytes() == log


def last_line(answer: Any) -> str:
    """Return the one line of an error behind the notice about patches."""
    assert (answer.code, answer.out) == (2, "")
    told = [line for line in answer.err.splitlines() if line and not re.search(r"\[\d\d:\d\d", line)]  # no bars
    lines = [line for line in told if "was cut into patches" not in line]
    assert len(lines) == 1, answer.err
    assert lines[0].startswith("bytropix: ")
    return str(lines[0])


@pytest.mark.parametrize(
    ("weights", "flags", "message"),
    [
        ((":0", ":0"), (), "all are 0"),
        ((":-1", ":1"), (), "-1.0 for"),
        ((":nan", ":1"), (), "nan for"),
        ((":1", ""), (), "digits.bx has no weight, but others have"),
        ((":1", ":1"), ("--temperature", 2), "give one of them"),
        (("", ""), ("--temperature", 0), "the temperature of a mixture must be positive"),
        ((":1", ":1"), ("--curriculum", "5:1"), "1 for 2 stores"),
        ((":1", ":1"), ("--curriculum", "5:1,x"), "is not STEP:WEIGHT,WEIGHT"),
        ((":1", ":1"), ("--curriculum", "9:1,2", "--curriculum", "5:1,1"), "stages must begin one after the other"),
        (("", "/nowhere.bx"), (), "nowhere.bx"),
    ],
)
def test_what_cannot_be_mixed_is_one_line_and_leaves_no_run(
    cli: Any, words: Any, tmp_path: Path, weights: tuple[str, str], flags: tuple[object, ...], message: str
) -> None:
    """Refused before anything is made, with exit code 2."""
    run = tmp_path / "run"

    assert message in cli(*words(run, *flags, weights=weights)).refusal()
    assert not run.exists()


def test_flags_for_several_stores_need_several(cli: Any, store_path: Path, tiny: Path, tmp_path: Path) -> None:
    """A single store is not mixed, and none at all is one line too."""
    rest = ("--run", tmp_path / "run", "--recipe", tiny)

    assert "--store is needed" in cli("train", "bytes", *rest).refusal()
    for flag in (("--temperature", 2), ("--curriculum", "5:1")):
        assert "only one --store" in cli("train", "bytes", "--store", store_path, *rest, *flag).refusal()


def test_the_same_store_twice_is_refused(store_path: Path, tmp_path: Path) -> None:
    """Even from another place: its weights belong together."""
    copy = shutil.copytree(store_path, tmp_path / "copy.bx")
    with pytest.raises(ConfigError, match=r"copy\.bx: the same store as .*small\.bx"):
        open_source([f"{store_path}:1", f"{copy}:1"], temperature=None, curriculum=(), step_windows=1)


def test_a_source_is_a_store_or_a_mixture(store_path: Path, digits: Path) -> None:
    """One place is a store with or without a weight; steps of stages become windows."""
    for word in (str(store_path), f"{store_path}:0.7"):
        assert isinstance(open_source([word], temperature=None, curriculum=(), step_windows=8), Store)
    both = [f"{store_path}:7", f"{digits}:3"]
    mixed = open_source(both, temperature=None, curriculum=("10:1,0", "25:0,1"), step_windows=8)

    assert isinstance(mixed, Mixture)
    assert mixed.weights == (7, 3)
    assert mixed.stages == (Stage(80, (1, 0)), Stage(200, (0, 1)))


@pytest.mark.parametrize(
    ("word", "place", "weight"),
    [
        ("a.bx", "a.bx", None),
        ("a.bx:0.7", "a.bx", 0.7),
        ("a.bx:7e-1", "a.bx", 0.7),
        ("a.bx:-1", "a.bx", -1.0),
        ("s3://bucket/a.bx", "s3://bucket/a.bx", None),
        ("s3://bucket/a.bx:0.5", "s3://bucket/a.bx", 0.5),
        ("http://host:8080/a.bx", "http://host:8080/a.bx", None),
        ("http://host:8080/a.bx:2", "http://host:8080/a.bx", 2.0),
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000", None),
        ("https://[::1]:8000", "https://[::1]:8000", None),
        ("http://me:5@host:8000", "http://me:5@host:8000", None),
        ("http://127.0.0.1:8000:2", "http://127.0.0.1:8000", 2.0),
        ("http://127.0.0.1:8000/:2", "http://127.0.0.1:8000/", 2.0),
        ("s3://bucket:2", "s3://bucket", 2.0),
        (r"C:\data\a.bx", r"C:\data\a.bx", None),
        (r"C:\data\a.bx:3", r"C:\data\a.bx", 3.0),
        ("C:a.bx", "C:a.bx", None),
        ("with:colon.bx", "with:colon.bx", None),
        ("run:5:1", "run:5", 1.0),
        ("a.bx:", "a.bx:", None),
    ],
)
def test_a_weight_is_a_number_behind_the_last_colon(word: str, place: str, weight: float | None) -> None:
    """Drives, schemes, ports and colons in names are part of the place, and reach the command as they are."""
    command = parse(["train", "bytes", "--store", word, "--store", "b.bx", "--run", "r"])

    assert isinstance(command, TrainBytes)
    assert command.store == (word, "b.bx")
    assert read_place(word) == (place, weight)


@pytest.mark.skipif(sys.platform == "win32", reason="needs names with colons")
def test_a_local_store_may_end_in_a_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that is there under the whole word is the store; a weight may still follow it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run:2024").mkdir()

    assert read_place("run:2024") == ("run:2024", None)
    assert read_place("run:2024:3") == ("run:2024", 3.0)
    assert read_place("run:2025") == ("run", 2025.0)


def test_a_stage_is_a_step_and_weights() -> None:
    """Anything else is named."""
    assert read_stage("1000:0.2,0.8") == (1000, (0.2, 0.8))
    assert read_stage("1:3") == (1, (3.0,))
    for word in ("1000", "1000:", "x:1,2", "-5:1,2", "5:1,,2", "5:1;2", "²:1,1"):
        with pytest.raises(ConfigError, match="is not STEP:WEIGHT,WEIGHT"):
            read_stage(word)


def test_a_mixture_is_plain_data(store_path: Path, digits: Path) -> None:
    """What run folder and log keep is JSON of any reader, an infinite temperature too."""
    stores = Store.open(store_path), Store.open(digits)
    kept = json.loads(json.dumps(facts_of(Mixture(stores, temperature=math.inf)), allow_nan=False))

    assert kept["temperature"] == "inf"
    assert [row["fingerprint"] for row in kept["stores"]] == [store.fingerprint for store in stores]
    assert [row["weight"] for row in kept["stores"]] == [None, None]


def test_names_of_stores_tell_them_apart(store_path: Path, digits: Path, tmp_path: Path) -> None:
    """Two stores of one name get their number in the tags."""
    other = shutil.copytree(digits, tmp_path / "small.bx")
    stores = tuple(map(Store.open, (store_path, digits, other)))

    assert names_of(stores[0]) == ["small.bx"]
    assert names_of(Mixture(stores[:2])) == ["small.bx", "digits.bx"]
    assert names_of(Mixture((stores[0], stores[2]))) == ["1-small.bx", "2-small.bx"]


def test_quarantine_goes_on_and_says_what_it_left_out(
    cli: Any, words: Any, tmp_path: Path, digits: Path, store_path: Path
) -> None:
    """Damage in one store of two ends a run, unless a budget allows it; then it is counted in log and summary."""
    broken = Path(shutil.copytree(digits, tmp_path / "broken.bx"))
    found = [path for path in broken.rglob("*") if path.is_file() and {"train", "bytes"} <= set(path.parts)]
    files = [path for path in found if path.name != "zarr.json"]
    for file in files:
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        file.write_bytes(data)
    stores = ("--store", f"{store_path}:1", "--store", f"{broken}:1")
    rest = words(tmp_path / "run", "--train.steps", 4)[6:]
    line = last_line(cli("train", "bytes", *stores, *rest))
    assert "broken.bx" in line

    shutil.rmtree(tmp_path / "run", ignore_errors=True)
    allowed = ("--train.checks", "quarantine", "--train.damage-budget", 9)
    answer = cli("train", "bytes", *stores, *rest, *allowed)
    assert answer.code == 0, answer.err
    assert f"left out {len(files)} damaged blocks" in answer.err
    assert curve(tmp_path / "run", "data/damaged_blocks")[4] == len(files)


def test_stores_are_named_by_url(
    cli: Any, words: Any, tmp_path: Path, store_path: Path, digits: Path, s3_bucket: str
) -> None:
    """A store in a bucket mixes with one on the disk as two on the disk do, and is evaluated there."""
    import s3fs

    s3fs.S3FileSystem(skip_instance_cache=True).put(str(digits), f"{s3_bucket}/digits.bx", recursive=True)
    here, there = tmp_path / "here", tmp_path / "there"
    assert cli(*words(here, "--train.steps", 3)).code == 0
    stores = ("--store", f"{store_path}:3", "--store", f"{s3_bucket}/digits.bx:1")
    assert cli("train", "bytes", *stores, *words(there, "--train.steps", 3)[6:]).code == 0

    assert losses(there) == losses(here)
    figures = cli("evaluate", "--run", there, "--store", f"{s3_bucket}/digits.bx", "--json").json()
    assert figures["store"] == f"{s3_bucket}/digits.bx"
    assert (
        figures["bits_per_byte"] == cli("evaluate", "--run", here, "--store", digits, "--json").json()["bits_per_byte"]
    )


def test_fields_that_decide_the_windows_are_the_identity_of_a_run() -> None:
    """How windows are cut may not change when a run goes on; what becomes of damage may."""

    def identity(**fields: Any) -> dict[str, Any]:
        return Recipe(train=TrainConfig(**fields)).identity()

    assert identity(pack="documents") != identity(pack="bytes")
    assert identity(checks="quarantine", damage_budget=3) == identity(checks="off") == identity()
    assert identity(shard="fsdp") == identity()
    with pytest.raises(ConfigError, match="only quarantine leaves blocks out"):
        TrainConfig(damage_budget=3)
    with pytest.raises(ConfigError, match="must not be negative"):
        TrainConfig(checks="quarantine", damage_budget=-1)


def test_short_flags_name_fields_of_the_loop() -> None:
    """--pack and --shard are --train.pack and --train.shard."""
    command = parse(["train", "bytes", "--store", "s.bx", "--run", "r", "--pack", "documents", "--shard", "fsdp"])

    assert isinstance(command, TrainBytes)
    assert (command.train.pack, command.train.shard) == ("documents", "fsdp")
