"""Files that are either whole or not there: how every script writes to disk."""

import contextlib
import errno
import functools
import itertools
import json
import os
import platform
import re
import secrets
import sys
import time
import warnings
from pathlib import Path

from common.errors import UserError

# What locking gives on a file system that has no locks.
_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP}


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
    next_step = "Free the disk, make the folder writable or choose another one."
    path = Path(path)
    # A random name: two runs never share an aside file, nor meet one left by a killed run.
    aside = path.parent / f".{path.name}.{secrets.token_hex(4)}.tmp"
    try:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = open(aside, "xb")  # noqa: SIM115
        except ValueError as error:  # a name that no file can have; `write` may raise its own
            raise _unwritable(path, error, next_step) from error
        with file:
            write(file)
            file.flush()
            os.fsync(file.fileno())  # or a power cut could leave the new name on an empty file
        os.replace(aside, path)
    except OSError as error:
        raise _unwritable(path, error, next_step) from error
    finally:  # also after Ctrl-C; when all went well there is no aside file any more
        with contextlib.suppress(OSError, ValueError):
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
    folder = Path(folder)
    attempt = folder / f".attempt.{secrets.token_hex(4)}.tmp"
    try:
        write_atomically(attempt, lambda file: file.write(b"x"))
        attempt.unlink()
        for name in names:
            if os.path.isdir(folder / name):
                raise IsADirectoryError(errno.EISDIR, f"{name} is a folder")
    except (UserError, OSError) as error:
        cause = error.__cause__ or error
        raise _unwritable(f"{flag} {folder}", cause, "Choose another folder.") from error


def unused(path):
    """The first of NAME.old.EXT, NAME.old-2.EXT, ... that is not taken, as a Path."""
    path = Path(path)
    for number in itertools.count(1):
        aside = path.with_suffix(f".old{f'-{number}' if number > 1 else ''}{path.suffix}")
        if not os.path.lexists(aside):
            return aside
    raise AssertionError


class InUse(UserError):
    """Another process holds the lock."""


class Lock:
    """A folder for one process alone, as a `with` block.

    The lock ends with its process, however that ends; `training.lock` stays in the folder and
    means nothing by itself. `training.lock.json` says who holds it, for the message of the others.

    Args:
        folder: str or Path; it is created.
        flag: that names another folder, for the message.
        name: of the file that is locked.

    Raises:
        InUse: another process holds it.
        UserError: the folder cannot be written. On a file system
            without locks a line says so, and the block is entered without one.
    """

    def __init__(self, folder, flag="--model-dir", name="training.lock"):
        self.folder, self.flag = Path(folder), flag
        self._path = self.folder / name
        self._holder = self.folder / f"{name}.json"
        self._lock = None

    def __enter__(self):
        import filelock  # late: most that imports this module locks nothing

        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = filelock.FileLock(self._path, timeout=0, thread_local=False)
            with warnings.catch_warnings():  # that it takes a file for a lock, see below
                warnings.simplefilter("ignore")
                lock.acquire()
        except filelock.Timeout as error:
            raise InUse(
                f"{printable(self.folder)}: is in use by {self._who()}. Wait until it has ended, "
                f"or give another {self.flag}."
            ) from error
        except (OSError, ValueError, NotImplementedError) as error:
            no_locks = getattr(error, "errno", None) in _NO_LOCKS
            if not (no_locks or isinstance(error, NotImplementedError)):
                raise _unwritable(self.folder, error, f"Give another {self.flag}.") from error
            lock = None
        if isinstance(lock, filelock.SoftFileLock):  # a mere file, which outlives a killed process
            lock.release()
            lock = None
        if lock is None:
            print(
                f"{printable(self.folder)}: is on a file system without locks. See to it that "
                "nothing else is trained there meanwhile.",
                flush=True,
            )
            return self
        self._lock = lock
        holder = {
            "pid": os.getpid(),
            "host": platform.node(),
            "since": time.strftime("%Y-%m-%d %H:%M:%S"),
            "command": " ".join(sys.argv),
        }
        with contextlib.suppress(UserError):  # it only serves a message
            write_atomically(self._holder, lambda file: file.write(json.dumps(holder).encode()))
        return self

    def __exit__(self, *_):
        if self._lock is not None:
            with contextlib.suppress(OSError):
                self._holder.unlink()
            self._lock.release()
            self._lock = None

    def _who(self):
        try:
            if not os.path.isfile(self._holder):
                return "another process"
            holder = json.loads(self._holder.read_bytes())
            who = "process {pid} on {host} since {since} ({command})".format_map(holder)
            return printable(who)
        except Exception:  # just being written, or meddled with
            return "another process"


def printable(text):
    """A path or text as part of one line that any terminal shows; long ones lose their middle."""
    text = str(text)
    if len(text) > 400:
        text = f"{text[:200]}...{text[-100:]}"
    plain = (c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return "".join(plain)


def absolute(path):
    """The whole path, for a message; as given where there is no current folder any more."""
    try:
        return os.path.abspath(path)
    except OSError:
        return path


def reason_of(error):
    """What an exception says, on one line, in the words of the system where it has some."""
    if isinstance(error, FileExistsError | NotADirectoryError):
        return "it, or a folder above it, is a file"
    words = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return printable(" ".join(words.split()))


def _unwritable(path, error, next_step):
    return UserError(f"{printable(path)}: cannot be written ({reason_of(error)}). {next_step}")


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
