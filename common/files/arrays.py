"""An npz file of named arrays and a JSON header: written whole, read without pickle."""

import json
from pathlib import Path

import numpy as np

from common.errors import UserError, one_line
from common.files.whole import write_atomically


def save(path, header, arrays):
    """Write a file for load(), see write_atomically(); the same values give the same bytes.

    Args:
        path: str or Path.
        header: dict for JSON; its "format" is a number.
        arrays: dict from a name to each array.
    """
    text = np.array(json.dumps(header))
    write_atomically(path, lambda file: np.savez(file, header=text, **arrays))


def load(path, form, next_step):
    """(header, dict of arrays) of a file of save().

    Args:
        path: str or Path.
        form: what the header's "format" must be.
        next_step: sentence that ends the message of an error.

    Raises:
        FileNotFoundError: there is no such file.
        UserError: the file cannot be read, or is damaged.
    """
    try:
        with Path(path).open("rb") as file, np.load(file, allow_pickle=False) as archive:
            header = json.loads(archive["header"].item())
            if header["format"] != form:
                raise ValueError(f"it has format {header['format']!r:.20}, not {form}")
            return header, {name: archive[name] for name in archive.files if name != "header"}
    except FileNotFoundError:
        raise
    # A damaged file makes zipfile, zlib, NumPy and json fail in more ways than can be listed.
    except Exception as error:
        problem = "is damaged or was not written by this version of these scripts"
        if isinstance(error, OSError) and error.strerror:
            problem = "cannot be read"
        raise UserError(f"{one_line(path)}: {problem} ({one_line(error, 80)}). "
                        f"{next_step}") from error
