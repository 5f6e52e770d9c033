"""What a training has done so far, as numbers: for its state, its curve and whoever watches it."""

import contextlib
import dataclasses
import json
import math
from dataclasses import dataclass, field

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

    episode_reward: list = field(default_factory=list)
    all_episode_reward: list = field(default_factory=list)
    steps: int = 0
    seconds: float = 0.0
    learned: bool = False
    evaluations: list = field(default_factory=list)
    best: list | None = None
    test_returns: list | None = None
    finished: bool = False
    log_name: str = ""

    @property
    def episodes(self):
        return len(self.episode_reward)

    def as_dict(self):
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, entries):
        """The Progress of as_dict(), read from a file; ValueError if it cannot be one."""
        odd = entries.keys() ^ {f.name for f in dataclasses.fields(cls)}
        odd |= {name for name, check in _CHECKS.items() if name not in odd
                and not check(entries[name])}
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


def _number(value):
    return type(value) in (int, float) and math.isfinite(value)


def _numbers(value):
    return type(value) is list and all(map(_number, value))


def _evaluation(value):
    return type(value) is list and len(value) == 2 and type(value[0]) is int and _numbers(value[1])


_CHECKS = {
    "episode_reward": _numbers,
    "all_episode_reward": _numbers,
    "steps": lambda value: type(value) is int,
    "seconds": _number,
    "learned": lambda value: type(value) is bool,
    "evaluations": lambda value: type(value) is list and all(map(_evaluation, value)),
    "best": lambda value: value is None or (_numbers(value) and len(value) == 2),
    "test_returns": lambda value: value is None or _numbers(value),
    "finished": lambda value: type(value) is bool,
    "log_name": lambda value: type(value) is str,
}
