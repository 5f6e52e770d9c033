"""The trainings of a comparison, each a process of its own, whose result is kept.

A run lives in a folder, and the folder is named after all that determines it, so the same
command finds what is finished, goes on with what was stopped, and starts what is new.
"""

import asyncio
import functools
import hashlib
import json
import os
import re
import sys
from asyncio.subprocess import DEVNULL, PIPE, STDOUT
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common import process
from common.errors import UserError, one_line
from common.files.digest import changed, digest
from common.files.names import ROOT, state_path, task_name
from common.files.whole import write_atomically
from common.flags import Settings

# Otherwise each process would take all cores.
_THREADS = "TF_NUM_INTRAOP_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"


@dataclass(frozen=True, eq=False)  # each is itself alone, and so can be a key
class Run:
    """One training, or, where seed is None, a setting to be trained with seeds.

    Attributes:
        args: Settings of its command line.
        words: tuple, those of the command line, without --train, folders and seed.
        label: of the setting, for people.
        digest: of its script, see there.
        seed: of the training.
    """

    args: Settings
    words: tuple
    label: str
    digest: dict
    seed: int | None = None

    @property
    def setting(self):
        """What all runs share that differ only in their seed and code: begins a folder's name."""
        args, shared = self.args, {**self.args.everything, "RANDOM_SEED": None}
        task = task_name(args.env_id, args.preset)[:100]
        return f"{args.algorithm.lower()}_{task}_{_digits(shared)}"

    def folder(self, runs_dir):
        name = f"{self.setting}_{_digits(self.digest)}"
        return Path(runs_dir).absolute() / name / f"seed{self.seed}"

    def __str__(self):
        return f"{self.label}, seed {self.seed}"


def _digits(content):
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:10]


def result(run, runs_dir):
    """What a finished run has measured, see execute(); None if it has not finished."""
    path = run.folder(runs_dir) / "result.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def keep(run, runs_dir, measured):
    """Write a run's result into its folder; its state, which is large, is of no more use."""
    folder = run.folder(runs_dir)
    constants = {**run.args.everything, "RANDOM_SEED": run.seed}
    text = json.dumps({"constants": constants, **measured}).encode()
    write_atomically(folder / "result.json", lambda file: file.write(text))
    for state in folder.glob("model/*/training*.npz"):
        state.unlink()


def of_other_code(runs, runs_dir):
    """How many of the runs have finished with other code or packages."""
    return sum(any(Path(runs_dir).glob(f"{run.setting}_*/seed{run.seed}/result.json"))
               for run in runs)


async def execute_all(todo, runs_dir, at_a_time, execute, tell):
    """Execute runs, those that fail once more, and keep their results; ends when told to stop.

    Args:
        todo: list of Run.
        runs_dir: str or Path.
        at_a_time: how many.
        execute: as execute() below, with its first two arguments and `note`.
        tell: called with a run, what happened, and a value: ("steps", how many are done),
            ("retry", why), ("failed", why), ("result", what it has measured).

    Raises:
        process.Stopped: all runs have ended then, their states saved.
    """
    free = asyncio.Semaphore(at_a_time)

    async def turn(run):
        async with free:
            for what in "retry", "failed":  # if it fails
                try:
                    note = functools.partial(tell, run, "steps")
                    measured = await execute(run, run.folder(runs_dir), note=note)
                    keep(run, runs_dir, measured)
                except Exception as error:
                    tell(run, what, one_line(error, 1000, kind=True))
                else:
                    tell(run, "result", measured)
                    break

    running = tasks = [asyncio.create_task(turn(run)) for run in todo]
    try:
        with process.signals_noted():
            while running:
                process.stop_if_told()
                done, running = await asyncio.wait(running, timeout=0.2)
                for task in done:
                    task.result()  # raises what tell() raised
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def execute(run, folder, threads, note=lambda steps: None):
    """Train in a process of its own, going on with the state in `folder` if there is one.

    Who cancels this tells it to end, and waits until it has saved its state; a second time kills
    it. If this program is killed, it ends at the next line it prints, for nobody reads that.

    Args:
        run: Run.
        folder: absolute Path for weights, curve, training state and what it printed (log.txt).
        threads: how many TensorFlow may compute with.
        note: called with the number of steps done, at each evaluation.

    Returns:
        dict: what training.progress.Progress has but its lists of episodes: evaluations,
        test_returns, seconds, ...

    Raises:
        UserError: it ended without finishing, or its code has changed meanwhile.
    """
    args = run.args
    script, state = ROOT / args.script.name, state_path(folder / "model", *args.task)
    differing = changed(run.digest, digest(script, args.env_id))
    if differing:
        raise UserError(f"{differing} changed after the comparison began, or is another on this "
                        "machine: give the command again")
    line = [script, "--train", "--seed", run.seed, *run.words,
            "--model-dir", folder / "model", "--image-dir", folder / "image"]
    line += ["--resume"] if state.exists() else []
    variables = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8",
                 "TF_NUM_INTEROP_THREADS": "1", **dict.fromkeys(_THREADS, str(threads))}
    folder.mkdir(parents=True, exist_ok=True)
    said = "it said nothing"
    with open(folder / "log.txt", "ab", buffering=0) as log:  # to be read meanwhile
        training = await asyncio.create_subprocess_exec(
            sys.executable, *map(str, line), env=variables, stdin=DEVNULL, stdout=PIPE,
            stderr=STDOUT, limit=2**24,  # bytes of a line
            start_new_session=True,  # Ctrl-C reaches this program alone, which ends its runs itself
        )
        try:
            async for text in training.stdout:
                log.write(text)
                text = text.decode(errors="replace").strip()
                said = text or said
                found = re.match(r"Evaluation \| Step: (\d+)", text)
                if found:
                    note(int(found[1]))
            status = await training.wait()
        finally:
            if training.returncode is None:
                await _end(training, log)
    done = _done(state)
    if not done["finished"]:
        ending = f"exit status {status}" if status >= 0 else f"killed by signal {-status}"
        raise UserError(f"{ending}: {said}")
    return done


async def _end(training, log):
    """Tell a process to end, and wait until it has saved its state; if cancelled, no longer."""
    training.terminate()
    try:
        log.write(await training.stdout.read())
    except asyncio.CancelledError:
        training.kill()
    await training.wait()


def _done(state):
    """What a training's state says that it has done (checkpoint.py would need TensorFlow here)."""
    if not state.exists():
        return {"finished": False}
    with np.load(state, allow_pickle=False) as archive:
        return json.loads(archive["header"].item())["progress"]
