"""Many runs at a time, on this machine or a cluster: each once, failed ones once more.

Who works in a run's folder holds its lock, so several comparisons may share the folders.
"""

import contextlib
import functools
import os
import queue
import shutil
import tempfile
import threading
from concurrent.futures import CancelledError, ThreadPoolExecutor
from pathlib import Path

from common import files, runs, signals
from common.errors import UserError, one_line

_AGAIN = 1.0  # seconds until it is asked again for a run that others are working on


def execute_all(todo, runs_dir, workers, execute):
    """Execute runs; yields (run, what happened, value) as it happens, in the main thread.

    ("steps", steps done), ("retry", why), ("failed", why), ("result", result) and ("held", None):
    another comparison is working on this one, whose result, or else whose turn, is waited for.

    Args:
        todo: list of Run.
        runs_dir: str or Path.
        workers: how many at a time.
        execute: function of a run, its folder and progress(), see `local()`.
    """
    pool, events, ending = ThreadPoolExecutor(workers), queue.SimpleQueue(), threading.Event()

    def tell(run, what, value=None):
        if ending.is_set():
            raise CancelledError
        events.put((run, what, value))

    def work(run):
        try:
            tell(run, "result", _turn(run, runs_dir, execute, functools.partial(tell, run)))
        except files.InUse:
            tell(run, "held")
            if not ending.wait(_AGAIN):
                pool.submit(work, run)  # after all others
        except Exception as error:
            tell(run, "failed", one_line(error, 1000, kind=True))

    with signals.held() as to_the_end:  # or a run could be started, and nobody would end it
        try:
            for run in todo:
                pool.submit(work, run)
            unfinished = len(todo)
            while unfinished:
                signals.check()
                try:
                    event = events.get(timeout=0.2)
                except queue.Empty:
                    continue
                unfinished -= event[1] in ("result", "failed")
                yield event
        finally:  # all is done, or Ctrl-C
            to_the_end()  # while they save their states
            ending.set()
            pool.shutdown(cancel_futures=True)


def _turn(run, runs_dir, execute, tell):
    """Give a run its turn, in a thread: returns its result; files.InUse if others have it."""
    folder, training = run.folder(runs_dir), run.state(run.folder(runs_dir)).parent
    with files.locked(folder, "--runs-dir", "run.lock"):
        with files.locked(training):
            pass  # nor is a training of a killed comparison going on
        with contextlib.suppress(UserError):  # damaged
            measured = runs.result(run, runs_dir)
            if measured:  # another comparison's
                return measured
        execute = functools.partial(execute, run, folder, functools.partial(tell, "steps"))
        try:
            measured = execute()
        except (runs.Refused, CancelledError):
            raise
        except Exception as error:
            tell("retry", one_line(error, 1000, kind=True))
            measured = execute()
        runs.keep(run, runs_dir, measured)
        for state in training.glob("training*.npz"):
            state.unlink()  # large, and of no more use
        return measured


@contextlib.contextmanager
def local(workers):
    """Runs in parallel on this machine: (how many at a time, execute).

    execute(run, folder, progress) is runs.execute() of that run.

    Args:
        workers: how many at a time; they share the machine's cores.
    """
    threads = max(1, (os.cpu_count() or 1) // workers)
    yield workers, lambda run, folder, progress: runs.execute(run, folder, threads, progress)


@contextlib.contextmanager
def on_ray(address=None):
    """Runs on a Ray cluster, one core each; Ray places them, and repeats those of lost nodes.

    Progress is called without the steps in between.

    Args:
        address: of the cluster, such as "192.168.0.1:6379"; "auto" finds the one that this
            machine is a node of; None starts one on this machine alone.
    """
    try:
        import ray
    except ImportError as error:
        raise UserError(
            "--ray needs a package that is not installed: pip install -r requirements-cluster.txt"
        ) from error
    leave_out = ["/.git", "/.venv", "/runs", "/image", "/model", "/docs", "/tests"]
    environment = {"working_dir": str(runs.ROOT), "excludes": leave_out}
    try:
        ray.init(address, runtime_env=environment, log_to_driver=False, logging_level="ERROR")
    except ConnectionError as error:
        raise UserError(
            f"--ray {address}: no cluster answers there; start it with ray start --head"
        ) from error
    signals.install()  # Ray has its own way with them
    # max_retries: how often Ray repeats a run whose node or process is gone.
    remote = ray.remote(num_cpus=1, max_retries=2)(_execute_anywhere)

    def execute(run, folder, progress):
        reference = remote.remote(run)
        try:
            while not ray.wait([reference], timeout=runs.POLL)[0]:
                progress(0)
            measured, contents = ray.get(reference)
        except CancelledError:
            ray.cancel(reference)  # a KeyboardInterrupt there, which ends the training
            ray.wait([reference], timeout=runs.PATIENCE)
            raise
        except Exception as error:  # there, the cause is ours
            raise getattr(error, "cause", None) or error from None
        for name, content in contents.items():
            files.write_atomically(folder / name, lambda file, content=content: file.write(content))
        return measured

    # Some more than there are cores, so that none has to wait for work.
    cores = max(1, int(ray.cluster_resources().get("CPU", 1)))
    try:
        yield 2 * cores, execute
    finally:
        ray.shutdown()


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
