"""The README's way from a folder of mixed files to a verified store on S3, walked as it stands there."""

import bz2
import gzip
import io
import json
import os
import re
import shlex
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import s3fs

import bytropix
from bytropix.datasets.store import Store

PROJECT = Path(__file__).resolve().parents[2]
HEADING = "## From a folder of mixed files to a verified store on S3"


def readme_commands() -> list[str]:
    """Return the lines of the first code block below the heading."""
    text = (PROJECT / "README.md").read_text("utf-8").split(HEADING)[1]
    block = re.search(r"^```\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert block is not None
    return block[1].splitlines()


def make_mixed(folder: Path) -> int:
    """Fill a folder with files of ten kinds and return how many documents they hold, duplicates not counted twice."""
    folder.mkdir()
    story = [f"The {n}th whale was {n} fathoms long and sang of harbours.\n" * 40 for n in range(60)]
    (folder / "a.txt").write_text(story[0])
    (folder / "b.txt.gz").write_bytes(gzip.compress(story[1].encode()))
    (folder / "c.txt.bz2").write_bytes(bz2.compress(story[2].encode()))
    (folder / "rows.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in story[3:20]))
    (folder / "rows.csv").write_text("id,text\n" + "".join(f'{n},"{story[n]}"\n' for n in range(20, 30)))
    pq.write_table(pa.table({"text": story[30:40]}), folder / "rows.parquet")
    with zipfile.ZipFile(folder / "members.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for n in range(40, 50):
            archive.writestr(f"{n}.txt", story[n])
    with tarfile.open(folder / "members.tar", "w") as tar:
        for n in [*range(50, 60), 0]:  # the last is a duplicate of a.txt
            info = tarfile.TarInfo(f"{n}.txt")
            info.size = len(story[n])
            tar.addfile(info, io.BytesIO(story[n].encode()))
    return len(story)


@pytest.mark.usefixtures("s3_server")
def test_the_walk(tmp_path: Path) -> None:
    """Each command ends well, and what it leaves is what the text promises."""
    s3fs.S3FileSystem(skip_instance_cache=True).mkdir("corpora")
    documents = make_mixed(tmp_path / "mixed")
    (tmp_path / "later").mkdir()
    (tmp_path / "later" / "one.txt").write_text("One more story, of a calm sea.\n" * 50)
    commands = readme_commands()
    environment = os.environ | {"PYTHONPATH": str(Path(bytropix.__file__).parents[1])}
    for line in commands[1:]:
        words = [sys.executable, "-m", "bytropix", *shlex.split(line)[1:]]
        done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, (line, done.stderr)
    remote, local = Store.open("s3://corpora/mixed.bx"), Store.open(tmp_path / "tars.bx")
    first = Store.open("s3://corpora/mixed.bx", version=1)

    assert commands[0].startswith("export AWS_ENDPOINT_URL=")
    assert first.manifest.documents == documents
    assert sum(first.manifest.dropped.values()) == 1
    assert remote.manifest.version == 2
    assert remote.manifest.documents == local.manifest.documents == documents + 1
    for split in remote.splits:
        texts = [b"".join(part.arrays().text.tobytes() for part in s.parts(split)) for s in (remote, local)]
        assert texts[0] == texts[1]
    assert "<html" in (tmp_path / "report.html").read_text("utf-8")
