"""One training of a comparison: a process of its own, whose result is kept.

A run lives in a folder, and the folder is named after all that determines it, so the same
command finds what is finished, goes on with what was stopped, and starts what is new.
"""

import contextlib
import hashlib
import json
import math
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from common import checkpoint, provenance
from common.errors import UserError
from common.files import task_name, write_atomically

ROOT = Path(__file__).resolve().parent.parent
# These change nothing that is measured, but how long a run is; the seed has a folder of its own.
NO_PART = checkpoint.FREE - {"TRAIN_EPISODES", "TRAIN_STEPS"} | {"RANDOM_SEED"}
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
        whole = all(returns) and len({*map(len, returns)}) == 1 and measured["test_returns"]
        whole = whole and list(steps) == sorted({*steps}) and steps[-1] >= run.steps
        if not (whole and all(map(math.isfinite, numbers))):
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
