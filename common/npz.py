"""Reading npz files that anybody may have made: no pickle, no bomb, no surprise.

Zip entries say how large they are before they are unpacked, and may lie; so the reader says how
much it wants, what is declared is looked at first, and no more than that is unpacked.
"""

import contextlib
import os
import stat
import zipfile
from pathlib import Path

import numpy as np

from common.errors import UserError, one_line

NPY_LIMIT = 1_000  # bytes that NumPy may put before an array's values; it takes 128


@contextlib.contextmanager
def opened(path, next_step):
    """The file as an open zip archive without repeated entries, for array().

    Whatever the `with` block raises means that the file is damaged, unless it is a UserError.

    Args:
        path: str or Path.
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
            problem = "is damaged or was not written by these scripts"
            with zipfile.ZipFile(file) as archive:
                if len(archive.namelist()) > len(set(archive.namelist())):
                    raise ValueError("repeated entries")
                yield archive
    except (FileNotFoundError, UserError):
        raise
    # A damaged file makes zipfile, zlib, NumPy and json fail in more ways than can be listed
    # here, MemoryError and RecursionError among them.
    except Exception as error:
        problem = f"{problem} ({one_line(error, 80)})"
        raise UserError(f"{one_line(path)}: {problem}. {next_step}") from error


def array(archive, key, limit):
    """The array `key`, of at most `limit` bytes; its checksum is checked, no pickle read."""
    entry = archive.getinfo(f"{key}.npy")
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"'{key}' is packed as NumPy packs nothing")
    if entry.file_size > limit + NPY_LIMIT:
        raise ValueError(f"'{key}' takes {entry.file_size} bytes, more than {limit}")
    with archive.open(entry) as file:
        # It reads piece by piece, up to what is declared: archive.read() would unpack all there is.
        found = np.lib.format.read_array(file, allow_pickle=False)
        if file.read(1):  # at the end, and only there, the checksum is checked
            raise ValueError(f"'{key}' is longer than its array")
    return found
