"""A folder for one process alone."""

import contextlib
import os
import platform
import sys
import time
from pathlib import Path

import filelock

from common.errors import UserError, one_line
from common.files.whole import check_writable, write_atomically


@contextlib.contextmanager
def locked(folder, flag="--model-dir", name="training.lock"):
    """A folder for one process alone, as a `with` block, which never waits.

    The lock ends with its process, however that ends; the file stays and means nothing by itself.
    NAME.txt says who holds it, for the message of the others. Where the file system has no locks,
    a line says so, and the block is entered without one.

    Args:
        folder: str or Path; it is created.
        flag: that names another folder, for the message.
        name: of the file that is locked.

    Raises:
        UserError: the lock is held, or the folder cannot be written.
    """
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
        raise UserError(f"{one_line(folder)}: is in use by {who}. {next_step}") from error
    except (OSError, NotImplementedError) as error:
        check_writable(folder, flag)
        mind = "See to it that nothing else is trained there meanwhile."
        print(f"{one_line(folder)}: cannot be locked ({one_line(error)}). {mind}", flush=True)
    try:
        if lock.is_locked:
            since, command = time.strftime("%Y-%m-%d %H:%M:%S"), one_line(" ".join(sys.argv), 200)
            who = f"process {os.getpid()} on {platform.node()} since {since} ({command})"
            write_atomically(holder, lambda file: file.write(who.encode()))
            for aside in Path(folder).glob(".*.tmp"):  # of a killed process: see whole.py
                with contextlib.suppress(OSError):
                    aside.unlink()
        yield
    finally:
        if lock.is_locked:
            with contextlib.suppress(OSError):
                holder.unlink()
            lock.release()
