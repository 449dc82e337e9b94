"""What a kill leaves at the rarest moments is gone after the next run."""

from pathlib import Path

from bytropix.datasets.store import PartLayout
from bytropix.jobs.bench.kill_cases import append, ingest, small_corpus
from bytropix.jobs.bench.kills import tree


def test_folder_without_a_file_is_removed(tmp_path: Path) -> None:
    """A process that was killed between making a folder and its first file leaves an empty one."""
    sources = [small_corpus(tmp_path / "corpus")]
    ingest(sources, PartLayout(), tmp_path / "whole")
    (tmp_path / "killed" / "store.bx" / "parts" / "train" / ".writing-00000.zarr-0" / "bytes").mkdir(parents=True)
    ingest(sources, PartLayout(), tmp_path / "killed")

    assert tree(tmp_path / "whole") == tree(tmp_path / "killed")


def test_receipts_of_an_append_that_was_over_are_removed(tmp_path: Path) -> None:
    """A run that was killed when it had published, and is done again, has nothing to add and tidies up."""
    corpus = small_corpus(tmp_path / "corpus")
    ingest([corpus / "a.txt"], PartLayout(), tmp_path)
    append([corpus / "b.txt.gz"], tmp_path)
    whole = tree(tmp_path / "store.bx")
    (tmp_path / "store.bx" / "receipts").mkdir()
    (tmp_path / "store.bx" / "receipts" / "train-00002.zarr.json").write_text("{}")
    append([corpus / "b.txt.gz"], tmp_path)

    assert whole == tree(tmp_path / "store.bx")
