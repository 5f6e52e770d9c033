"""An npz file of named arrays and a JSON header: written whole, read without pickle or bomb.

Anybody may have made a file that is read. Zip entries say how large they are before they are
unpacked, and may lie; so what is declared is looked at first, and no more than that is unpacked.
"""

import contextlib
import json
import os
import stat
import zipfile
from pathlib import Path

import numpy as np

from common.errors import UserError, one_line
from common.files import write_atomically

UNPACKED = 10  # times the file's size, and 1 MB: more than this packed weights never take


def save(path, header, arrays):
    """Write a file for opened(), see files.write_atomically(); the same values, the same bytes.

    Args:
        path: str or Path.
        header: dict for JSON; its "format" is a number.
        arrays: dict from a name to each array.
    """
    text = np.array(json.dumps(header))
    write_atomically(path, lambda file: np.savez(file, header=text, **arrays))


@contextlib.contextmanager
def opened(path, form, next_step):
    """A file of save(): its header, and it as an open zip archive for array().

    Whatever the `with` block raises means that the file is damaged, unless it is a UserError.

    Args:
        path: str or Path.
        form: what the header's "format" must be.
        next_step: sentence that ends the message of an error.

    Raises:
        FileNotFoundError: there is no such file.
        UserError: the file cannot be read, is no regular file, or is damaged.
    """
    problem = "cannot be read"
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # opening a FIFO would wait for ever
            raise OSError("it is no file")
        with Path(path).open("rb") as file:
            problem = "is damaged or was not written by this version of these scripts"
            with zipfile.ZipFile(file) as archive:
                _check_entries(archive.infolist(), UNPACKED * os.stat(path).st_size + 1_000_000)
                header = json.loads(_entry(archive, "header").item())
                if header["format"] != form:
                    raise ValueError(f"it has format {header['format']!r:.20}, not {form}")
                yield header, archive
    except (FileNotFoundError, UserError):
        raise
    # A damaged file makes zipfile, zlib, NumPy and json fail in more ways than can be listed
    # here, MemoryError and RecursionError among them.
    except Exception as error:
        problem = f"{problem} ({one_line(error, 80)})"
        raise UserError(f"{one_line(path)}: {problem}. {next_step}") from error


def _check_entries(entries, limit):
    """Raise a ValueError unless they are as NumPy makes them, and take `limit` bytes at most."""
    if len(entries) > len({entry.filename for entry in entries}):
        raise ValueError("repeated entries")
    if {entry.compress_type for entry in entries} - {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        raise ValueError("it is packed as NumPy packs nothing")
    if sum(entry.file_size for entry in entries) > limit:
        raise ValueError(f"unpacked, it takes more than {limit} bytes")


def _entry(archive, name):
    with archive.open(f"{name}.npy") as file:
        # It reads piece by piece, up to what is declared: archive.read() would unpack all there is.
        found = np.lib.format.read_array(file, allow_pickle=False)
        if file.read(1):  # at the end, and only there, the checksum is checked
            raise ValueError(f"'{name}' is longer than its array")
    return found


def array(archive, name):
    """The array of a name, of finite numbers; its checksum is checked, no pickle read."""
    found = _entry(archive, name)
    if not np.isfinite(found).all():
        raise ValueError(f"'{name}' holds values that are not finite")
    return found
