"""Many trainings: each a process of its own, finished ones kept, failed ones repeated once.

A run lives in a folder, and the folder is named after all that determines it, so the same
command finds what is finished, goes on with what was stopped, and starts what is new. Who works
in a folder holds its lock, so several comparisons may share the folders.
"""

import contextlib
import hashlib
import json
import math
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from common import checkpoint, provenance, signals
from common.errors import UserError
from common.files import plain_env_id, task_name, write_atomically

ROOT = Path(__file__).resolve().parent.parent
# These change nothing that is measured, but how long a run is; the seed has a folder of its own.
NO_PART = checkpoint.FREE - {"TRAIN_EPISODES", "TRAIN_STEPS"} | {"RANDOM_SEED"}
_STEP = re.compile(r"^Training .* \| Step: (\d+)/")
# What a script says where another training, such as that of a killed comparison, goes on.
_IN_USE = "is in use by another process"
_AGAIN = 5.0  # seconds until it is asked again
_PATIENCE = 30.0  # seconds that a run has for saving its state, when it is told to end


class Refused(UserError):
    """The script itself has said what is wrong, so trying again would be of no use."""


@dataclass(eq=False)  # each is itself alone, and so can be a key
class Run:
    """One training.

    Attributes:
        script: such as "td3.py".
        flags: tuple of words for its command line, without --train, folders and seed.
        seed: of the training.
        preset: name.
        constants: dict, those that it will have.
        label: of the setting, for people.
        provenance: of the script, see there.
    """

    script: str
    flags: tuple
    seed: int
    preset: str
    constants: dict
    label: str
    provenance: dict

    @property
    def setting(self):
        """What all runs share that differ only in their seed and code: begins a folder's name."""
        task = task_name(self.constants["ENV_ID"], self.preset)[:100]
        return f"{self.constants['ALG_NAME'].lower()}_{task}_{_digest(parts(self.constants))}"

    @property
    def steps(self):
        return self.constants["TRAIN_STEPS"]

    def folder(self, runs_dir):
        code = _digest(self.provenance)
        return Path(runs_dir).absolute() / f"{self.setting}_{code}" / f"seed{self.seed}"

    def __str__(self):
        return f"{self.label}, seed {self.seed}"


def parts(constants):
    """Those of the constants that a result depends on."""
    return {name: value for name, value in constants.items() if name not in NO_PART}


def _digest(content):
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:10]


def result(run, runs_dir):
    """What a finished run has measured, see `execute()`, or None if it has not finished.

    Raises:
        UserError: there is a file, but not one that keep() has written.
    """
    path = run.folder(runs_dir) / "result.json"
    try:
        measured = json.loads(path.read_text(encoding="utf-8"))
        steps, returns = zip(*measured["evaluations"])
        numbers = [*steps, *(x for found in returns for x in found), *measured["test_returns"],
                   measured["seconds"]]
        whole = all(returns) and measured["test_returns"] and list(steps) == sorted({*steps})
        if not (whole and steps[-1] > 0 and all(map(math.isfinite, numbers))):
            raise ValueError("numbers are missing")
        if parts(measured["constants"]) != parts(run.constants):
            raise ValueError("it is of other constants")
        return measured
    except (FileNotFoundError, NotADirectoryError):
        return None
    # Another program's file can fail in many ways.
    except Exception as error:
        why = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{path} is damaged or not a result ({why:.80})") from error


def keep(run, runs_dir, measured):
    """Write a run's result into its folder, in one step."""
    path = run.folder(runs_dir) / "result.json"
    write_atomically(path, lambda file: file.write(json.dumps(measured).encode()))


def of_other_code(runs, runs_dir):
    """How many of the runs have finished with other code or packages."""
    return sum(
        any(path.parent != run.folder(runs_dir) for path in
            Path(runs_dir).absolute().glob(f"{run.setting}*/seed{run.seed}/result.json"))
        for run in runs
    )


def execute_all(runs, runs_dir, pool):
    """Execute runs; yields (run, what happened, value) as it happens, in the main thread.

    ("steps", steps done), ("retry", why), ("failed", why), ("result", result) and, with None for
    the run, ("held", how many): only runs are left that other comparisons are working on, and
    whose results, or else whose turn, is waited for.

    Args:
        runs: list of Run.
        runs_dir: str or Path.
        pool: Local or OnRay; it is closed at the end.
    """
    waiting, going, again, not_before, told = list(runs), {}, set(), {}, False
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
                    measured = result(run, runs_dir)
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
                    keep(run, runs_dir, value)
                    for state in run.folder(runs_dir).glob("model/*/training*.npz"):
                        state.unlink()  # large, and of no more use
                except (OSError, UserError) as error:
                    what, value = "failed", str(error)
            elif what == "failed":
                refused = isinstance(value, Refused)
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


def execute(run, folder, threads, progress=lambda steps: None, children=None):
    """Train in a process of its own, going on with the state in `folder` if there is one.

    Args:
        run: Run.
        folder: absolute Path for weights, curve, training state and what it printed (log.txt).
        threads: how many TensorFlow may compute with.
        progress: called with the number of steps done.
        children: Children that the process belongs to.

    Returns:
        dict: constants, evaluations, test_returns, episode_reward, steps, seconds.

    Raises:
        Refused: it ended without finishing, and said why, or its code has changed meanwhile.
        UserError: it was killed, or crashed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    algorithm, env_id = run.constants["ALG_NAME"], run.constants["ENV_ID"]
    state = checkpoint.path(folder / "model", algorithm, env_id, run.preset)
    line = [sys.executable, str(ROOT / run.script), "--train", "--seed", str(run.seed), *run.flags]
    line += ["--model-dir", str(folder / "model"), "--image-dir", str(folder / "image")]
    if checkpoint.progress_in(state) is not None:
        line.append("--resume")
    variables = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8"}
    if ":" in plain_env_id(env_id):  # its module may be in the folder where one stands
        path = [os.getcwd(), os.environ.get("PYTHONPATH", "")]
        variables["PYTHONPATH"] = os.pathsep.join(filter(None, path))
    for name in ("TF_NUM_INTRAOP_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        variables[name] = str(threads)
    variables["TF_NUM_INTEROP_THREADS"] = "1"
    said, changed = "", None
    with open(folder / "log.txt", "a", encoding="utf-8") as log, subprocess.Popen(
        line, env=variables, text=True, encoding="utf-8", errors="replace",
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        start_new_session=True,  # Ctrl-C reaches this program alone, which ends its runs itself
    ) as process, (children.having(process) if children else contextlib.nullcontext()):
        for text in process.stdout:
            log.write(text)
            said = text.strip() or said
            step = _STEP.match(text)
            if step:
                if changed is None:  # all modules have been imported: were they the right ones?
                    here = provenance.provenance(ROOT / run.script, env_id)
                    changed = provenance.changed(run.provenance, here)
                    if changed:
                        process.terminate()
                progress(int(step[1]))
    if changed:
        state.unlink(missing_ok=True)  # or it would be resumed as if it were the other code's
        raise Refused(f"{changed} changed after the comparison began: give the command again")
    done = checkpoint.progress_in(state)
    if not (done and done["finished"]):
        if said.startswith(f"{run.script}: "):
            raise Refused(said)
        status = process.returncode
        ending = f"killed by signal {-status}" if status < 0 else f"exit status {status}"
        raise UserError(f"{ending}: {said or 'it said nothing'}")
    measured = {"constants": run.constants}
    for name in ("evaluations", "test_returns", "episode_reward", "steps", "seconds"):
        measured[name] = done[name]
    return measured


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
            measured = execute(run, folder, self._threads, progress, self._children)
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
        leave_out = [".git", ".venv", "runs", "image", "model", "docs", "tests"]
        environment = {"working_dir": str(ROOT), "excludes": [f"/{name}" for name in leave_out]}
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
        measured = execute(run, folder, threads=1)
        kept = [*folder.glob("model/*/weights.npz"), *folder.glob("image/*.png")]
        kept.append(folder / "log.txt")
        return measured, {str(path.relative_to(folder)): path.read_bytes() for path in kept}
    finally:
        shutil.rmtree(folder, ignore_errors=True)
