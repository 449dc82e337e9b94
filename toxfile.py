"""Let all stages live in one environment folder, so that torch is installed once.

    tox.ini: runner = stage, env_dir = {work_dir}/stages
    stage lint   -> create the folder, install the package and its extras
    stage types  -> the same folder as it is
    edited code  -> build the wheel, exchange the package alone

Plain tox empties a folder that another environment has used: it keeps the environment's name in the folder and
compares. Here every stage writes one name. tox loads this file by itself, since it lies beside tox.ini.
"""

import hashlib
import zipfile
from pathlib import Path
from typing import Any, ClassVar

from tox.plugin import impl
from tox.tox_env.api import ToxEnv
from tox.tox_env.info import Info
from tox.tox_env.python.virtual_env.runner import VirtualEnvRunner
from tox.tox_env.register import ToxEnvRegister


class StagesInfo(Info):
    """What tox remembers of the folder, under one name for all stages."""

    def compare(self, value: Any, section: str, sub_section: str | None = None) -> Any:
        """Compare with the last run's value; a change still makes a fresh environment."""
        if section == ToxEnv.__name__:
            value = {**value, "name": "stages"}
        return super().compare(value, section, sub_section)


class Stage(VirtualEnvRunner):
    """A virtual environment that the stages share."""

    _emptied: ClassVar[bool] = False

    @staticmethod
    def id() -> str:
        """Return the name by which tox.ini asks for this runner."""
        return "stage"

    @property
    def cache(self) -> StagesInfo:
        """What tox remembers of the folder."""
        return StagesInfo(self.env_dir)

    def _clean(self, transitive: bool = False) -> None:  # noqa: FBT001, FBT002 - the signature is tox's
        # `tox run -r` asks every stage to start afresh; only the first may empty what the others then use.
        if not (transitive and Stage._emptied):
            Stage._emptied = True
            super()._clean(transitive)

    def _install(self, arguments: Any, section: str, of_type: str) -> None:
        if of_type != "package":
            super()._install(arguments, section, of_type)
            return
        # A reinstalled package loses its compiled kernels, so an unchanged one stays.
        stamp = self.env_dir / "installed-package.txt"
        digest = "\n".join(contents_digest(package.path) for package in arguments if hasattr(package, "path"))
        if not stamp.is_file() or stamp.read_text(encoding="ascii") != digest:
            super()._install(arguments, section, of_type)
            stamp.write_text(digest, encoding="ascii")


def contents_digest(wheel: Path) -> str:
    """Return a sha256 of the files in a wheel, whatever their times; the same code has the same digest."""
    with zipfile.ZipFile(wheel) as archive:
        members = sorted((member.filename, member.CRC) for member in archive.infolist())
    return hashlib.sha256(repr(members).encode()).hexdigest()


@impl
def tox_register_tox_env(register: ToxEnvRegister) -> None:
    """Make the runner known to tox."""
    register.add_run_env(Stage)
