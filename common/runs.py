"""Many trainings: each a process of its own, finished ones kept, failed ones repeated once.

A run lives in a folder, and the folder is named after all that determines it, so the same
command finds what is finished, goes on with what was stopped, and starts what is new.
"""

import contextlib
import hashlib
import json
import os
import queue
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from common import checkpoint
from common.errors import UserError
from common.files import task_name, write_atomically

ROOT = Path(__file__).resolve().parent.parent
ATTEMPTS = 2
# These change nothing that is measured, but how long a run is; the seed has a folder of its own.
_NO_PART = checkpoint.FREE - {"TRAIN_EPISODES", "TRAIN_STEPS"} | {"RANDOM_SEED"}
_STEP = re.compile(r"^Training .* \| Step: (\d+)/")


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
    """

    script: str
    flags: tuple
    seed: int
    preset: str
    constants: dict
    label: str

    @property
    def setting(self):
        """What all runs share that differ only in their seed: part of a folder's name."""
        parts = {k: v for k, v in sorted(self.constants.items()) if k not in _NO_PART}
        digest = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:10]
        task = task_name(self.constants["ENV_ID"], self.preset)
        return f"{self.constants['ALG_NAME'].lower()}_{task}_{digest}"

    @property
    def steps(self):
        return self.constants["TRAIN_STEPS"]

    def folder(self, runs_dir):
        return Path(runs_dir) / self.setting / f"seed{self.seed}"

    def __str__(self):
        return f"{self.label}, seed {self.seed}"


def result(run, runs_dir):
    """What a finished run has measured, or None: see `execute()`."""
    try:
        return json.loads((run.folder(runs_dir) / "result.json").read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return None


def keep(run, runs_dir, measured):
    """Write a run's result into its folder, in one step."""
    path = run.folder(runs_dir) / "result.json"
    write_atomically(path, lambda file: file.write(json.dumps(measured).encode()))


def execute(run, folder, threads, progress=lambda steps: None, stop=None):
    """Train in a process of its own, going on with the state in `folder` if there is one.

    Args:
        run: Run.
        folder: Path for weights, curve, training state and what the run printed (log.txt).
        threads: how many TensorFlow may compute with.
        progress: called with the number of steps done.
        stop: Stop that ends the process early.

    Returns:
        dict: constants, evaluations, test_returns, episode_reward, steps, seconds.

    Raises:
        Refused: it ended without finishing, and said why.
        UserError: it was killed, or crashed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    algorithm, env_id = run.constants["ALG_NAME"], run.constants["ENV_ID"]
    state = checkpoint.path(folder / "model", algorithm, env_id, run.preset)
    line = [sys.executable, run.script, "--train", "--seed", str(run.seed), *run.flags]
    line += ["--model-dir", str(folder / "model"), "--image-dir", str(folder / "image")]
    if checkpoint.progress_in(state) is not None:
        line.append("--resume")
    variables = {**os.environ, "PYTHONUNBUFFERED": "1"}
    for name in ("TF_NUM_INTRAOP_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        variables[name] = str(threads)
    variables["TF_NUM_INTEROP_THREADS"] = "1"
    said = ""
    with open(folder / "log.txt", "a", encoding="utf-8") as log, subprocess.Popen(
        line, cwd=ROOT, env=variables, text=True, encoding="utf-8", errors="replace",
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        start_new_session=True,  # Ctrl-C reaches this program alone, which ends its runs itself
    ) as process, (stop.ending(process) if stop else contextlib.nullcontext()):
        for text in process.stdout:
            log.write(text)
            said = text.strip() or said
            step = _STEP.match(text)
            if step:
                progress(int(step[1]))
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


class Stop:
    """Ends all running processes; new ones are ended as soon as they start."""

    def __init__(self):
        self.asked = False
        self._processes = set()
        self._lock = threading.Lock()

    def now(self):
        with self._lock:
            self.asked = True
            for process in self._processes:
                process.terminate()

    @contextlib.contextmanager
    def ending(self, process):
        with self._lock:
            self._processes.add(process)
            if self.asked:
                process.terminate()
        try:
            yield
        finally:
            with self._lock:
                self._processes.discard(process)


class Local:
    """Runs in parallel on this machine.

    Args:
        workers: how many at a time; they share the machine's cores.
    """

    def __init__(self, workers):
        self.workers = workers
        self.threads = max(1, (os.cpu_count() or 1) // workers)
        self.stop = Stop()

    def all(self, runs, runs_dir):
        """Execute runs; yields (run, what happened, value) as it happens.

        ("steps", steps done), ("retry", why), ("failed", why), ("result", result).
        """
        happened = queue.Queue()

        def work(run, attempt=1):
            folder = run.folder(runs_dir)
            progress = lambda steps: happened.put((run, "steps", steps))  # noqa: E731
            try:
                measured = execute(run, folder, self.threads, progress, self.stop)
                for state in folder.glob("model/*/training*.npz"):
                    state.unlink()  # large, and of no more use
                return "result", measured
            except Refused as error:
                return "failed", str(error)
            except Exception as error:
                why = " ".join(str(error).split()) or type(error).__name__
            if self.stop.asked or attempt == ATTEMPTS:
                return "failed", why
            happened.put((run, "retry", why))
            return work(run, attempt + 1)

        with ThreadPoolExecutor(self.workers) as pool:
            futures = [pool.submit(work, run) for run in runs]
            for run, future in zip(runs, futures):
                future.add_done_callback(
                    lambda f, r=run: f.cancelled() or happened.put((r, *f.result()))
                )
            left = len(runs)
            try:
                while left:
                    run, what, value = happened.get()
                    left -= what in ("result", "failed")
                    yield run, what, value
            finally:  # Ctrl-C, or all is done
                for future in futures:
                    future.cancel()
                self.stop.now()


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
        self.ray = ray
        leave_out = [".git", ".venv", "runs", "image", "model", "docs", "tests"]
        environment = {"working_dir": str(ROOT), "excludes": [f"/{name}" for name in leave_out]}
        try:
            ray.init(address, runtime_env=environment, log_to_driver=False, logging_level="ERROR")
        except ConnectionError as error:
            raise UserError(
                f"--ray {address}: no cluster answers there; start it with ray start --head"
            ) from error

    def all(self, runs, runs_dir):
        """As Local.all(), without the steps in between."""
        # max_retries: how often Ray repeats a run whose node or process is gone.
        remote = self.ray.remote(num_cpus=1, max_retries=ATTEMPTS)(_execute_anywhere)
        waiting = {remote.remote(run): (run, 1) for run in runs}
        try:
            while waiting:
                ready, _ = self.ray.wait(list(waiting), num_returns=1)
                run, attempt = waiting.pop(ready[0])
                try:
                    measured, files = self.ray.get(ready[0])
                except Exception as error:
                    why = " ".join(str(getattr(error, "cause", None) or error).split())[:300]
                    if attempt < ATTEMPTS and not isinstance(error, Refused):
                        waiting[remote.remote(run)] = run, attempt + 1
                        yield run, "retry", why
                    else:
                        yield run, "failed", why
                    continue
                for name, content in files.items():
                    path = run.folder(runs_dir) / name
                    write_atomically(path, lambda file, content=content: file.write(content))
                yield run, "result", measured
        finally:
            for reference in waiting:
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
