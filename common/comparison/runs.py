"""One training of a comparison: a process of its own, whose result is kept.

A run lives in a folder, and the folder is named after all that determines it, so the same
command finds what is finished, goes on with what was stopped, and starts what is new.
"""

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from common import checkpoint, progress, provenance
from common.errors import UserError, one_line
from common.files import task_name, write_atomically

ROOT = Path(__file__).resolve().parent.parent
POLL = 0.3  # seconds between looks at a run
PATIENCE = 30.0  # seconds that a run has for saving its state, when it is told to end
# These change nothing that is measured, but how long a run is; the seed has a folder of its own.
_NO_PART = checkpoint.FREE - {"TRAIN_EPISODES", "TRAIN_STEPS"} | {"RANDOM_SEED"}


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
    def steps(self):
        return self.constants["TRAIN_STEPS"]

    @property
    def setting(self):
        """What all runs share that differ only in their seed and code: begins a folder's name."""
        task = task_name(self.constants["ENV_ID"], self.preset)[:100]
        return f"{self.constants['ALG_NAME'].lower()}_{task}_{_digest(parts(self.constants))}"

    def folder(self, runs_dir):
        code = _digest(self.provenance)
        return Path(runs_dir).absolute() / f"{self.setting}_{code}" / f"seed{self.seed}"

    def state(self, folder):
        """Where in a folder the training's state lies."""
        task = self.constants["ALG_NAME"], self.constants["ENV_ID"], self.preset
        return checkpoint.path(folder / "model", *task)

    def __str__(self):
        return f"{self.label}, seed {self.seed}"


def parts(constants):
    """Those of the constants that a result depends on."""
    return {name: value for name, value in constants.items() if name not in _NO_PART}


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
        if parts(measured["constants"]) != parts(run.constants):
            raise ValueError("it is of other constants")
        done = {name: value for name, value in measured.items() if name != "constants"}
        done = progress.Progress.from_dict(done)
        if done.evaluations[-1][0] < run.steps or not done.test_returns:
            raise ValueError("numbers are missing")
        return measured
    except (FileNotFoundError, NotADirectoryError):
        return None
    except Exception as error:  # another program's file can fail in many ways
        why = one_line(error, 80, kind=True)
        raise UserError(f"{path} is damaged or not a result ({why})") from error


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


def execute(run, folder, threads, tell=lambda steps: None):
    """Train in a process of its own, going on with the state in `folder` if there is one.

    Args:
        run: Run.
        folder: absolute Path for weights, curve, training state and what it printed (log.txt).
        threads: how many TensorFlow may compute with.
        tell: called again and again with the number of steps done; whatever it raises ends
            the process, its state saved.

    Returns:
        dict: constants, and what progress.Progress has: evaluations, test_returns, seconds, ...

    Raises:
        Refused: it ended without finishing, and said why, or its code has changed meanwhile.
        UserError: it was killed, or crashed.
    """
    state = run.state(folder)
    folder.mkdir(parents=True, exist_ok=True)
    progress.path(state).unlink(missing_ok=True)  # an earlier attempt's
    line = [sys.executable, ROOT / run.script, "--train", "--seed", str(run.seed), *run.flags,
            "--model-dir", folder / "model", "--image-dir", folder / "image"]
    line += ["--resume"] if checkpoint.progress_in(state) else []
    limits = ("TF_NUM_INTRAOP_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    variables = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8",
                 "TF_NUM_INTEROP_THREADS": "1", **dict.fromkeys(limits, str(threads))}
    changed = None
    with open(folder / "log.txt", "a+", encoding="utf-8", errors="replace") as log:
        began = log.seek(0, os.SEEK_END)
        process = subprocess.Popen(
            line, env=variables, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C reaches this program alone, which ends its runs itself
        )
        try:
            while process.poll() is None and not changed:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(POLL)
                steps = progress.noted_steps(state)
                if steps and changed is None:  # all is imported: were they the right modules?
                    here = provenance.provenance(ROOT / run.script, run.constants["ENV_ID"])
                    changed = provenance.changed(run.provenance, here)
                tell(steps)
        finally:
            _end(process)
        log.seek(began)
        said = ["it said nothing", *filter(None, map(str.strip, log))][-1]
    if changed:
        state.unlink(missing_ok=True)  # or it would be resumed as if it were the other code's
        raise Refused(f"{changed} changed after the comparison began: give the command again")
    done = checkpoint.progress_in(state)
    if done and done.finished:
        return {"constants": run.constants, **done.as_dict()}
    if said.startswith(f"{run.script}: "):
        raise Refused(said)
    status = process.returncode
    ending = f"exit status {status}" if status >= 0 else f"killed by signal {-status}"
    raise UserError(f"{ending}: {said}")


def _end(process):
    """Tell a process to end, which saves its state, and see to it that it does."""
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(PATIENCE)
        with contextlib.suppress(AttributeError, OSError):  # and what it had started, if any
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()
        process.wait()
