"""One wheel's files into one directory: what ``import`` needs and nothing that runs. Standard library and ``installer`` only.

Also a program: ``python -I unpack.py WHEEL DIRECTORY`` does it in a process of its own, at low priority, so that a large wheel neither
holds up the daemon's event loop nor is read by the process that owns the sandboxes. Its last line of output is ``null`` or
``{"errno": …, "error": …}``.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import zlib
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import BinaryIO
from zipfile import BadZipFile, ZipFile

from installer import install
from installer.destinations import WheelDestination
from installer.exceptions import InstallerError
from installer.records import RecordEntry
from installer.sources import WheelFile
from installer.utils import Scheme

BYTES_MAX = 8 << 30
FILES_MAX = 200_000
RECORD = "record.csv"
"""Where the wheel's own list of files and their hashes is kept: beside the directory, because nothing that is imported needs it."""


class NotAWheel(ValueError):
    """The file is damaged, or holds what no honest wheel holds. The message says which."""


class _Flat(WheelDestination):
    """Code and data files of the package go to one directory. Scripts, headers and files for elsewhere in the prefix are left out:
    nothing of a wheel is ever executed by its name."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._bytes = self._files = 0

    def write_file(self, scheme: Scheme, path: str | os.PathLike[str], stream: BinaryIO, is_executable: bool) -> RecordEntry:
        text = os.fspath(path)
        entry = RecordEntry(text, None, None)
        if scheme not in ("purelib", "platlib"):
            return entry
        parts = PurePosixPath(text).parts
        if text.startswith("/") or ".." in parts or "\\" in text or not parts or any(ord(character) < 32 for character in text):
            raise NotAWheel(f"it holds a file called {text!r}")
        target = self._directory.joinpath(*parts)
        target.parent.mkdir(parents=True, exist_ok=True)
        # installer hands out the contents of links as plain files, and "x" follows none: whatever is in the archive stays in here.
        with target.open("xb") as file:
            shutil.copyfileobj(stream, file, 1 << 20)
            self._bytes += file.tell()
        self._files += 1
        if self._bytes > BYTES_MAX or self._files > FILES_MAX:
            raise NotAWheel(f"it unpacks to more than {BYTES_MAX >> 30} GiB or {FILES_MAX} files")
        if is_executable:
            target.chmod(0o755)
        return entry

    def write_script(self, name: str, module: str, attr: str, section: str) -> RecordEntry:
        return RecordEntry(name, None, None)

    def finalize_installation(self, scheme: Scheme, record_file_path: str, records: Iterable[tuple[Scheme, RecordEntry]]) -> None:
        for _ in records:
            pass


def unpack(wheel: Path, directory: Path) -> None:
    """Fills the new ``directory``, and RECORD beside it. Raises NotAWheel, or OSError (ENOSPC when the disk is full)."""
    directory.mkdir()
    try:
        with ZipFile(wheel) as archive:
            declared = sum(info.file_size for info in archive.infolist())
            if declared > BYTES_MAX:
                raise NotAWheel(f"it unpacks to {declared >> 30} GiB")
            source = WheelFile(archive)
            install(source, _Flat(directory), additional_metadata={})
            directory.with_name(RECORD).write_text(source.read_dist_info("RECORD"))
    except NotAWheel:
        raise
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise NotAWheel(f"it holds {Path(error.filename).name!r} twice") from None
    except (BadZipFile, zlib.error, InstallerError, KeyError, ValueError, EOFError, AssertionError, NotImplementedError, RuntimeError) as error:
        raise NotAWheel(f"it is damaged: {error}") from None


def main(wheel: str, directory: str) -> None:
    os.nice(10)
    os.umask(0o022)
    problem = None
    try:
        unpack(Path(wheel), Path(directory))
    except NotAWheel as error:
        problem = {"errno": 0, "error": str(error)}
    except OSError as error:
        problem = {"errno": error.errno, "error": str(error)}
    sys.stdout.write(json.dumps(problem) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
