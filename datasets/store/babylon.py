"""The patcher's table in a store or a run folder: babylon/, a Zarr group.

Patcher -> babylon/ + settings -> Patcher
"""

import typing
from typing import TYPE_CHECKING, Any

import numpy as np

from bytropix.datasets.store.formats import records_of
from bytropix.datasets.store.schema import FileRecord
from bytropix.datasets.store.storage import Storage
from bytropix.datasets.store.zarr_group import ArrayLayout, encode_group
from bytropix.errors import StoreError

if TYPE_CHECKING:  # with its compiled kernels it takes a second to import, and a store opens without it
    from bytropix.patching import Patcher

BABYLON = "babylon"
MOST_BYTES = 1 << 24  # of a table in memory: what claims more is none of ours


def write_patcher(storage: Storage, patcher: "Patcher") -> tuple[dict[str, Any], tuple[FileRecord, ...]]:
    """Write the table of a patcher and return its settings and its files, for the manifest."""
    files = encode_group(
        patcher.table.arrays(), ArrayLayout(codec="zstd"), attributes={"measure": patcher.table.measure}
    )
    storage.write_folder(BABYLON, files)
    return patcher.settings(), records_of(files)


def load_patcher(storage: Storage, settings: dict[str, Any]) -> "Patcher":
    """Return the patcher of `settings` with the table that lies in `storage`.

    Raises:
        StoreError: The table is missing or damaged.
    """
    import zarr
    from zarr.core.buffer import default_buffer_prototype
    from zarr.storage import MemoryStore

    from bytropix.patching import EntropyTable, Patcher

    place = f"{storage.url}/{BABYLON}"
    buffer = default_buffer_prototype().buffer
    try:
        names = storage.sizes(BABYLON)
        kept = {name.removeprefix(f"{BABYLON}/"): buffer.from_bytes(storage.read(name).tobytes()) for name in names}
        group = zarr.open_group(MemoryStore(kept), mode="r")
        found = dict(group.arrays())
        if sum(array.nbytes for array in found.values()) > MOST_BYTES:
            raise ValueError("arrays of another size")
        arrays = {name: np.asarray(array[:]) for name, array in found.items()}
        table = EntropyTable.from_arrays(arrays, typing.cast(Any, group.attrs["measure"]))
        return Patcher.from_settings(settings, table)
    except StoreError:
        raise
    except Exception as error:  # whatever zarr makes of metadata that is none
        said = " ".join(str(error).split())
        raise StoreError(f"{place}: the entropy table is damaged ({said}); restore it or ingest again") from error
