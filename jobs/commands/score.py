"""`bytropix score`: the nats of every byte of any file."""

import io
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from bytropix.datasets.store.commit import write_file
from bytropix.errors import RunError, SourceError
from bytropix.jobs.evaluation import file_nats
from bytropix.jobs.progress import progress_bar
from bytropix.jobs.recipe import choose_device
from bytropix.jobs.run_folder import RunFolder


@dataclass(frozen=True, kw_only=True)
class Score:
    """Write -ln p of every byte of a file under a trained model, as a float32 .npy array as long as the file.

    The file is cut into documents and patches as ingestion cuts it, each byte from earlier bytes alone, so the sum of
    the nats is the figure that `bytropix evaluate` gives for the same documents.
    """

    file: Annotated[Path, tyro.conf.Positional]
    """Any file: its bytes are data, whatever they are."""
    run: Path
    """The run folder; its latest checkpoint is read."""
    out: Path
    """The .npy file to write."""
    stride: int = 0
    """Bytes by which a window moves on; 0 is half the context."""
    device: str = "auto"
    """auto takes a GPU where there is one."""
    json: bool = False
    """Print one JSON object."""

    def __call__(self) -> int:
        """Score and write."""
        run = RunFolder(self.run)
        recipe = run.recipe()
        model = run.model().to(choose_device(self.device))
        data = _read(self.file)
        if not self.out.parent.is_dir():
            raise RunError(f"{self.out}: no folder {self.out.parent} to write into; make it or choose another --out")
        with progress_bar("score", len(data)) as bar:
            nats = file_nats(
                model,
                run.patcher(),
                data,
                document_bytes=run.document_bytes(),
                context=recipe.train.context,
                stride=self.stride or None,
                progress=bar.update,
            )
        packed = io.BytesIO()
        np.save(packed, nats, allow_pickle=False)
        write_file(self.out, packed.getvalue())
        total = float(nats.sum(dtype=np.float64))
        bits = total / (math.log(2) * len(data))
        figures = {
            "file": str(self.file),
            "out": str(self.out),
            "bytes": len(data),
            "nats": total,
            "bits_per_byte": bits,
        }
        print(json.dumps(figures) if self.json else f"{bits:.4f} bits per byte over {len(data):,} bytes: {self.out}")
        return 0


def _read(file: Path) -> bytes:
    """Return the bytes of a file that has at least one."""
    try:
        data = file.read_bytes()
    except OSError as error:
        raise SourceError(f"{file}: cannot be read ({error.strerror}); give a readable file") from error
    if not data:
        raise SourceError(f"{file}: empty; give a file with at least one byte")
    return data
