"""Files that are either whole or not there: how every script writes to disk."""

import contextlib
import errno
import functools
import itertools
import os
import platform
import re
import secrets
import sys
import time
from pathlib import Path

from common.errors import UserError, one_line


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
        UserError: files cannot be written or renamed there.
    """
    attempt = Path(folder) / f".attempt.{secrets.token_hex(4)}.tmp"
    try:
        write_atomically(attempt, lambda file: file.write(b"x"))
        attempt.unlink()
        for name in names:
            if os.path.isdir(attempt.with_name(name)):
                raise IsADirectoryError(errno.EISDIR, f"{name} is a folder")
    except (UserError, OSError) as error:
        cause = error.__cause__ or error
        raise _unwritable(f"{flag} {folder}", cause, "Choose another folder.") from error


def unused(path):
    """The first of NAME.old.EXT, NAME.old-2.EXT, ... that is not taken, as a Path."""
    names = (f".old{f'-{n}' if n > 1 else ''}{Path(path).suffix}" for n in itertools.count(1))
    paths = (Path(path).with_suffix(name) for name in names)
    return next(path for path in paths if not os.path.lexists(path))


def _unwritable(path, error, next_step):
    reason = one_line(error)
    if isinstance(error, FileExistsError | NotADirectoryError):
        reason = "it, or a folder above it, is a file"
    return UserError(f"{one_line(path)}: cannot be written ({reason}). {next_step}")


class InUse(UserError):
    """Another process, or another block of this one, holds the lock."""


@contextlib.contextmanager
def locked(folder, flag="--model-dir", name="training.lock"):
    """A folder for one process alone, as a `with` block, which never waits.

    The lock ends with its process, however that ends; `training.lock` stays in the folder and
    means nothing by itself. `training.lock.txt` says who holds it, for the message of the others.
    Where the file system has no locks, a line says so, and the block is entered without one.

    Args:
        folder: str or Path; it is created.
        flag: that names another folder, for the message.
        name: of the file that is locked.

    Raises:
        InUse: the lock is held.
        UserError: the folder cannot be written.
    """
    import filelock  # late: most that imports this module locks nothing

    path, holder = Path(folder) / name, Path(folder) / f"{name}.txt"
    lock = filelock.FileLock(path, thread_local=False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except filelock.Timeout as error:
        who = "another process"
        with contextlib.suppress(OSError):
            who = one_line(holder.read_text("utf-8", "replace")) or who
        next_step = f"Wait until it has ended, or give another {flag}."
        raise InUse(f"{one_line(folder)}: is in use by {who}. {next_step}") from error
    except (OSError, NotImplementedError) as error:
        check_writable(folder, flag)
        mind = "See to it that nothing else is trained there meanwhile."
        print(f"{one_line(folder)}: cannot be locked ({one_line(error)}). {mind}", flush=True)
    try:
        if lock.is_locked:
            since, command = time.strftime("%Y-%m-%d %H:%M:%S"), one_line(" ".join(sys.argv), 200)
            who = f"process {os.getpid()} on {platform.node()} since {since} ({command})"
            write_atomically(holder, lambda file: file.write(who.encode()))
        yield
    finally:
        if lock.is_locked:
            with contextlib.suppress(OSError):
                holder.unlink()
            lock.release()


@functools.cache
def present_id(env_id):
    """The id under which an environment is known today; where it has changed, says so, once."""
    if plain_env_id(env_id) != "Pendulum-v0":
        return env_id
    print("Gym replaced Pendulum-v0 with Pendulum-v1: Pendulum-v1 runs.", flush=True)
    return env_id.replace("-v0", "-v1")


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
