"""Many runs at a time, on this machine or a cluster: each once, failed ones once more.

Who works in a run's folder holds its lock, so several comparisons may share the folders.
"""

import contextlib
import os
import queue
import shutil
import signal
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from filelock import FileLock, Timeout

from common import runs, signals
from common.errors import UserError
from common.files import write_atomically

# What a script says where another training, such as that of a killed comparison, goes on.
_IN_USE = "is in use by "
_AGAIN = 5.0  # seconds until it is asked again
_PATIENCE = 30.0  # seconds that a run has for saving its state, when it is told to end


def execute_all(todo, runs_dir, pool):
    """Execute runs; yields (run, what happened, value) as it happens, in the main thread.

    ("steps", steps done), ("retry", why), ("failed", why), ("result", result) and, with None for
    the run, ("held", how many): only runs are left that other comparisons are working on, and
    whose results, or else whose turn, is waited for.

    Args:
        todo: list of Run.
        runs_dir: str or Path.
        pool: Local or OnRay; it is closed at the end.
    """
    waiting, going, again, not_before, told = list(todo), {}, set(), {}, False
    try:
        while waiting or going:
            signals.check()
            free = pool.size - len(going)
            for run in list(waiting) if free > 0 else ():
                if free <= 0 or time.monotonic() < not_before.get(run, 0):
                    continue
                try:
                    lock = _lock(run.folder(runs_dir))
                except (OSError, NotImplementedError) as error:
                    waiting.remove(run)
                    yield run, "failed", f"its folder cannot be used: {error}"
                    continue
                if lock is None:
                    continue
                waiting.remove(run)
                measured = None
                with contextlib.suppress(UserError):
                    measured = runs.result(run, runs_dir)
                if measured:  # another comparison's
                    lock.release()
                    yield run, "result", measured
                    continue
                free, going[run] = free - 1, lock
                pool.start(run, run.folder(runs_dir))
            if waiting and free > 0 and not told:
                told = True
                yield None, "held", len(waiting)
            event = pool.wait(0.2)
            if event is None:
                continue
            run, what, value = event
            if what == "result":
                try:
                    runs.keep(run, runs_dir, value)
                    for state in run.folder(runs_dir).glob("model/*/training*.npz"):
                        state.unlink()  # large, and of no more use
                except (OSError, UserError) as error:
                    what, value = "failed", str(error)
            elif what == "failed":
                refused = isinstance(value, runs.Refused)
                value = " ".join(str(value).split())[:1000] or type(value).__name__
                if refused and _IN_USE in value:
                    what, not_before[run] = "held", time.monotonic() + _AGAIN
                    waiting.append(run)
                elif not refused and run not in again:
                    what = "retry"
                    again.add(run)
                    pool.start(run, run.folder(runs_dir))
            if what in ("result", "failed", "held"):
                going.pop(run).release()
            if what != "held":
                yield run, what, value
    finally:  # all is done, or Ctrl-C
        signals.hold_to_the_end()  # which close() sees to
        pool.close()
        for lock in going.values():
            lock.release()


def _lock(folder):
    """The lock of a run's folder, taken, or None if another comparison has it."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / "run.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return None
    return lock


class Children:
    """The processes that run; once told to, they end, also those that are just being started."""

    def __init__(self):
        self._processes, self._ending = set(), False

    @contextlib.contextmanager
    def having(self, process):
        self._processes.add(process)
        if self._ending:
            process.terminate()
        try:
            yield
        finally:
            self._processes.discard(process)

    def end(self):
        """Tell them to end, which saves their state, and see to it that they do."""
        self._ending = True
        for process in list(self._processes):
            process.terminate()
        deadline = time.monotonic() + _PATIENCE
        for process in list(self._processes):
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0, deadline - time.monotonic()))
            process.kill()
            with contextlib.suppress(AttributeError, OSError):  # and what it had started, if any
                os.killpg(process.pid, signal.SIGKILL)


class Local:
    """Runs in parallel on this machine.

    Args:
        workers: how many at a time; they share the machine's cores.
    """

    def __init__(self, workers):
        self.size = workers
        self._threads = max(1, (os.cpu_count() or 1) // workers)
        self._children, self._events = Children(), queue.SimpleQueue()
        self._pool = ThreadPoolExecutor(workers)

    def start(self, run, folder):
        self._pool.submit(self._work, run, folder)

    def _work(self, run, folder):
        def progress(steps):
            self._events.put((run, "steps", steps))

        try:
            measured = runs.execute(run, folder, self._threads, progress, self._children)
            self._events.put((run, "result", measured))
        except Exception as error:
            self._events.put((run, "failed", error))

    def wait(self, seconds):
        """The next that happens, (run, "steps", "result" or "failed", value), or None."""
        try:
            return self._events.get(timeout=seconds)
        except queue.Empty:
            return None

    def close(self):
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._children.end()
        self._pool.shutdown()


class OnRay:
    """Runs on a Ray cluster, one core each; Ray places them, and repeats those of lost nodes.

    Args:
        address: of the cluster, such as "192.168.0.1:6379"; "auto" finds the one that this
            machine is a node of; None starts one on this machine alone.
    """

    def __init__(self, address=None):
        try:
            import ray
        except ImportError as error:
            raise UserError(
                "--ray needs a package that is not installed: "
                "pip install -r requirements-cluster.txt"
            ) from error
        self.ray, self._going = ray, {}
        leave_out = [f"/{name}" for name in
                     (".git", ".venv", "runs", "image", "model", "docs", "tests")]
        environment = {"working_dir": str(runs.ROOT), "excludes": leave_out}
        try:
            ray.init(address, runtime_env=environment, log_to_driver=False, logging_level="ERROR")
        except ConnectionError as error:
            raise UserError(
                f"--ray {address}: no cluster answers there; start it with ray start --head"
            ) from error

    @property
    def size(self):
        """Runs at a time; some more than there are cores, so that none has to wait for work."""
        return 2 * max(1, int(self.ray.cluster_resources().get("CPU", 1)))

    def start(self, run, folder):
        # max_retries: how often Ray repeats a run whose node or process is gone.
        remote = self.ray.remote(num_cpus=1, max_retries=2)(_execute_anywhere)
        self._going[remote.remote(run)] = run, folder

    def wait(self, seconds):
        """As Local.wait(), without the steps in between."""
        if not self._going:
            time.sleep(seconds)
            return None
        ready, _ = self.ray.wait(list(self._going), num_returns=1, timeout=seconds)
        if not ready:
            return None
        run, folder = self._going.pop(ready[0])
        try:
            measured, files = self.ray.get(ready[0])
            for name, content in files.items():
                write_atomically(folder / name, lambda file, content=content: file.write(content))
        except Exception as error:
            return run, "failed", getattr(error, "cause", None) or error
        return run, "result", measured

    def close(self):
        for reference in self._going:
            self.ray.cancel(reference, force=True)
        self.ray.shutdown()


def _execute_anywhere(run):
    """On a node of a cluster: (result, dict from file name to content)."""
    folder = Path(tempfile.mkdtemp(prefix="run-"))
    try:
        measured = runs.execute(run, folder, threads=1)
        kept = [*folder.glob("model/*/weights.npz"), *folder.glob("image/*.png")]
        kept.append(folder / "log.txt")
        return measured, {str(path.relative_to(folder)): path.read_bytes() for path in kept}
    finally:
        shutil.rmtree(folder, ignore_errors=True)
