"""Files that are either whole or not there: how every script writes to disk."""

import contextlib
import os
import re
import secrets
from pathlib import Path

from common.errors import UserError


def write_atomically(path, write):
    """Write a file so that `path` holds the old or the new content, always whole.

    Missing folders are created. The content goes into an aside file in the same folder,
    which replaces `path` only when all of it has reached the disk. An aside file left
    by a killed run (`.NAME.XXXXXXXX.tmp`) is never read and may be deleted.

    Args:
        path: str or Path of the file.
        write: function of one open binary file that writes the content, for example
            `lambda file: np.savez(file, weights=weights)`.

    Raises:
        UserError: the file cannot be written (read-only folder, full disk, ...).
        Whatever else `write` raises passes through; `path` is then as it was.
    """
    path = Path(path)
    # A random name: two runs never share an aside file, nor meet one left by a killed run.
    aside = path.parent / f".{path.name}.{secrets.token_hex(4)}.tmp"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(aside, "xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())  # or a power cut could leave the new name on an empty file
        os.replace(aside, path)
    except OSError as error:
        if isinstance(error, FileExistsError | NotADirectoryError):
            reason = f"'{path.parent}' or a folder above it is a file"
        else:
            reason = error.strerror or str(error) or type(error).__name__
        raise UserError(
            f"{path}: cannot be written ({reason}). "
            "Free the disk, make the folder writable or choose another one."
        ) from error
    finally:  # also after Ctrl-C; when all went well there is no aside file any more
        with contextlib.suppress(OSError):
            aside.unlink()


def plain_env_id(env_id):
    """The environment's id without "gymnasium:", which names the library, not the task."""
    return env_id.removeprefix("gymnasium:")


def safe_name(env_id):
    """An environment's id as part of a file name, valid on Linux, macOS and Windows.

    "Pendulum-v1" and "gymnasium:Pendulum-v1" give "Pendulum-v1", "ALE/Pong-v5" gives
    "ALE-Pong-v5".
    """
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", plain_env_id(env_id))
    return name.strip(".-") or "environment"  # Windows drops a dot at the end of a name


def task_name(env_id, preset="chapter"):
    """The environment and, unless it is the chapter's, the preset: part of a file name."""
    return safe_name(env_id) + (f"_{safe_name(preset)}" if preset != "chapter" else "")
