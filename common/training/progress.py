"""What a training has done so far, as numbers: for its state, its curve and its bar."""

from dataclasses import dataclass, field


@dataclass
class Progress:
    """What a training has done so far.

    Attributes:
        episode_reward: sum of the rewards of each episode, a list.
        all_episode_reward: the chapter's running curve, the script's own list.
        steps: how many were played.
        seconds: of training; evaluations do not count.
        learned: whether an update was made.
        evaluations: [steps done, [return of each start]] of each.
        best: [steps, mean return] of the evaluation whose weights are kept, or None.
        test_returns: of the weights that are kept, from the test starts, or None.
        finished: whether all its episodes or steps are done.
        log_name: of its folder for TensorBoard.
    """

    all_episode_reward: list
    episode_reward: list = field(default_factory=list)
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
