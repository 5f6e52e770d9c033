"""Files that are either whole or not there: how every script writes to disk."""

import contextlib
import errno
import os
from pathlib import Path

from common.errors import UserError, one_line
from common.files.names import ROOT


def write_atomically(path, write):
    """Write a file so that `path` holds the old or the new content, always whole.

    Missing folders are created. The content goes into an aside file in the same folder,
    which replaces `path` only when all of it has reached the disk. An aside file left
    by a killed run (`.NAME.XXXXXXXX.tmp`) is never read and may be deleted.

    Args:
        path: str or Path of the file.
        write: function of one open binary file that writes the content.

    Raises:
        UserError: the file cannot be written (read-only folder, full disk, ...).
        Whatever else `write` raises passes through; `path` is then as it was.
    """
    path = Path(path)
    # A random name: two runs never share an aside file, nor meet one left by a killed run.
    aside = path.parent / f".{path.name}.{os.urandom(4).hex()}.tmp"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(aside, "xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())  # or a power cut could leave the new name on an empty file
        os.replace(aside, path)
    except OSError as error:
        next_step = "Free the disk, make the folder writable or choose another one."
        raise _unwritable(path, error, next_step) from error
    finally:  # also after Ctrl-C; when all went well there is no aside file any more
        with contextlib.suppress(OSError):
            aside.unlink()


def check_writable(folder, flag, *names):
    """Try, before anything is computed, what a run will do to its folder at the end.

    Args:
        folder: str or Path; it is created.
        flag: that names the folder, for the message.
        names: of files that will be written there.

    Raises:
        UserError: files cannot be written or renamed there, or what ships is there.
    """
    resolved = Path(folder).resolve()
    if any(resolved.is_relative_to(ROOT / kind / "pretrained") for kind in ("model", "image")):
        raise UserError(f"{flag} {one_line(Path(folder))}: holds what ships, and no run writes "
                        "there. Choose another folder.")
    attempt = Path(folder) / f".attempt.{os.urandom(4).hex()}.tmp"
    try:
        write_atomically(attempt, lambda file: file.write(b"x"))
        attempt.unlink()
        for name in names:
            if os.path.isdir(attempt.with_name(name)):
                raise IsADirectoryError(errno.EISDIR, f"{name} is a folder")
    except (UserError, OSError) as error:
        cause = error.__cause__ or error
        what = f"{flag} {one_line(Path(folder))}"
        raise _unwritable(what, cause, "Choose another folder.") from error


def _unwritable(path, error, next_step):
    reason = one_line(error)
    if isinstance(error, FileExistsError | NotADirectoryError):
        reason = "it, or a folder above it, is a file"
    return UserError(f"{one_line(path)}: cannot be written ({reason}). {next_step}")
