"""What a training has done so far, as numbers: for its state, its curve and whoever watches it."""

import contextlib
import dataclasses
import json
import math
import types
import typing
from dataclasses import dataclass, field

import numpy as np

from common.errors import UserError
from common.files import write_atomically


@dataclass
class Progress:
    """What a training has done so far.

    Attributes:
        episode_reward: sum of the rewards of each episode, a list.
        all_episode_reward: the chapter's running curve, as many: 0.9 * the last + 0.1 * episode's.
        steps: their number.
        seconds: of training; evaluations do not count.
        learned: whether an update was made.
        evaluations: [steps done, [return of each start]] of each.
        best: [steps, mean return] of the evaluation whose weights are kept, or None.
        test_returns: of the weights that are kept, from the test starts, or None.
        finished: whether all its episodes or steps are done.
        log_name: of its folder for TensorBoard.
    """

    episode_reward: list[float] = field(default_factory=list)
    all_episode_reward: list[float] = field(default_factory=list)
    steps: int = 0
    seconds: float = 0.0
    learned: bool = False
    evaluations: list[tuple[int, list[float]]] = field(default_factory=list)
    best: tuple[int, float] | None = None
    test_returns: list[float] | None = None
    finished: bool = False
    log_name: str = ""

    @property
    def episodes(self):
        return len(self.episode_reward)

    def as_dict(self):
        return dataclasses.asdict(self)

    def collapse(self):
        """What to say if the running reward lost most of what it had gained, else ""."""
        running = np.array(self.all_episode_reward)
        if len(running) < 20:  # too few to tell from chance
            return ""
        best = 10 + int(running[10:].argmax())
        gain, loss = running[best] - running[: best + 1].min(), running[best] - running[-1]
        noise = np.std(self.episode_reward[best - 10 : best + 1])
        if gain <= 2 * noise or loss <= gain / 2:
            return ""
        return (
            f"The running reward collapsed, from {running[best]:.1f} at episode {best + 1} to "
            f"{running[-1]:.1f} (try another --seed, smaller learning rates or --keep best)"
        )

    @classmethod
    def from_dict(cls, entries):
        """The Progress of as_dict(), read from a file; ValueError if it cannot be one."""
        kinds = {each.name: each.type for each in dataclasses.fields(cls)}
        odd = entries.keys() ^ kinds.keys()
        odd |= {name for name in kinds.keys() - odd if not _is(entries[name], kinds[name])}
        if not odd and len(entries["episode_reward"]) != len(entries["all_episode_reward"]):
            odd = {"all_episode_reward"}
        if odd:
            raise ValueError(f"its progress has an odd {min(odd)}")
        return cls(**entries)


def path(state):
    """Where the steps done are noted for whoever watches: beside the training's state."""
    return state.with_name("progress.json")


def note(state, progress):
    """Write the numbers of episodes and steps for whoever watches; a display ends no training."""
    text = json.dumps({"steps": progress.steps, "episodes": progress.episodes}).encode()
    with contextlib.suppress(UserError):
        write_atomically(path(state), lambda file: file.write(text))


def noted_steps(state):
    """The steps done that note() has written; 0 where there is no note."""
    with contextlib.suppress(FileNotFoundError):
        return json.loads(path(state).read_bytes())["steps"]
    return 0


def _is(value, kind):
    """Whether a value of a JSON file is of a kind: list[float], tuple[int, float] | None, ..."""
    parts = typing.get_args(kind)
    if isinstance(kind, types.UnionType):
        return any(_is(value, part) for part in parts)
    if typing.get_origin(kind) is list:
        return type(value) is list and all(_is(one, parts[0]) for one in value)
    if typing.get_origin(kind) is tuple:  # JSON has only lists
        return type(value) is list and len(value) == len(parts) and all(map(_is, value, parts))
    if kind is float:
        return type(value) in (int, float) and math.isfinite(value)
    return type(value) is kind
