"""What XLA has compiled, kept on disk: the second start compiles nothing.

TensorFlow can write each program that XLA compiles into a folder, and read it there the next time.
It takes what it finds: a damaged file would end the run, and machine code belongs to one kind of
processor. So each processor and each TensorFlow has a folder of its own, and a note beside the
files of a program has their checksums: what does not agree with a note is deleted, and compiled
again.
"""

import contextlib
import json
import os
import platform
import shutil
import sys
import zlib
from pathlib import Path

from common.errors import UserError
from common.files.names import ROOT
from common.files.whole import check_writable, write_atomically

LIMIT = 200e6  # bytes, of all folders; the files that were used last stay
_VARIABLES = "XLA_FLAGS", "TF_NUM_INTRAOP_THREADS", "TF_ENABLE_ONEDNN_OPTS"  # change its code
_SINCE = 2, 21  # TensorFlow's version; 2.16 writes a complaint for each file that it reads
_FREE = 1e9  # bytes that must be free on the disk, or nothing is kept


class CompileCache:
    """The programs that are kept; without a folder, none are."""

    folder = None

    def use(self):
        """Tell TensorFlow, before its import, where to keep what it compiles.

        That is `.cache/` beside the scripts or, where nobody may write there, a folder of the
        user's; where there is neither, nothing is kept.
        """
        from importlib import metadata  # late: it imports much

        if "tensorflow" in sys.modules:
            return
        version = "0.0"
        with contextlib.suppress(metadata.PackageNotFoundError):
            version = metadata.version("tensorflow")
        if tuple(map(int, version.split(".")[:2])) < _SINCE:
            return
        name, given = f"tensorflow-{version}-{_machine()}", os.environ.get("TF_XLA_FLAGS", "")
        home = os.environ.get("LOCALAPPDATA") or os.environ.get("XDG_CACHE_HOME") or "~/.cache"
        for base in ROOT / ".cache", Path(os.path.expanduser(home), "deep-rl-chapter-6"):
            folder = base / name
            ours = (f'--tf_xla_persistent_cache_directory="{folder.as_posix()}" '
                    "--tf_xla_persistent_cache_device_types=CPU")
            flags = given.replace(ours, "")  # of a parent process
            if "persistent_cache" in flags:  # the user's own
                continue
            with contextlib.suppress(UserError, OSError):
                check_writable(folder, "")
                if shutil.disk_usage(folder).free >= _FREE:
                    os.environ["TF_XLA_FLAGS"] = f"{flags} {ours}".strip()
                    self.folder = folder
                    self._tidy(base)
                    return

    def _tidy(self, base):
        """Delete what no note vouches for, and the oldest files above the limit."""
        vouched = set()
        for note in self.folder.glob("*.json"):
            vouched |= _read(note).keys()
        for file in self.folder.glob("*.pb"):
            if file.name not in vouched:
                _delete(file)
        found = []
        for file in base.glob("*/*"):
            with contextlib.suppress(OSError):
                found.append((file.stat().st_mtime, file.stat().st_size, file))
        total = 0
        for _, size, file in sorted(found, reverse=True):
            total += size
            if total > LIMIT:
                _delete(file)

    @contextlib.contextmanager
    def compiling(self, program):
        """A block in which TensorFlow compiles a program, or reads it; gives whether it is kept.

        Args:
            program: a name that stands for all that determines it.
        """
        if not self.folder:
            yield False
            return
        note = self.folder / f"{program}.json"
        sums = _read(note)
        kept = bool(sums) and all(_checksum(self.folder / name) == s for name, s in sums.items())
        for file in [note, *(self.folder / name for name in sums)]:
            with contextlib.suppress(OSError):
                os.utime(file) if kept else file.unlink()
        before = self._files()
        yield kept
        sums = {name: _checksum(self.folder / name) for name in self._files() - before}
        if sums:
            text = json.dumps(sums).encode()
            with contextlib.suppress(UserError):  # then it is compiled again
                write_atomically(note, lambda file: file.write(text))

    def _files(self):
        return {file.name for file in self.folder.glob("*.pb")}


compile_cache = CompileCache()


def _machine():
    """What code is compiled for, as a short name: the processor, its cores, XLA's own flags."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    told = [platform.machine(), str(cores), *(os.environ.get(name, "") for name in _VARIABLES)]
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            told += sorted({line for line in file if line.startswith(
                ("vendor_id", "cpu family", "model", "stepping", "flags", "CPU", "Features"))})
    except OSError:  # elsewhere the system does not tell what a processor can do
        told += [platform.processor(), platform.node()]
    return f"{zlib.crc32(' '.join(told).encode()):08x}"


def _read(note):
    """The checksums that a note has, by name of file; none if it is not there or damaged."""
    with contextlib.suppress(OSError, ValueError):
        sums = json.loads(note.read_bytes())
        if isinstance(sums, dict):
            return sums
    return {}


def _checksum(path):
    with contextlib.suppress(OSError):
        return zlib.crc32(path.read_bytes())
    return None


def _delete(file):
    with contextlib.suppress(OSError):  # another process may have been quicker
        file.unlink()
