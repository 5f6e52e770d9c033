"""What a run shows and leaves behind: episode lines, weights, the reward curve."""

import sys
import time

import numpy as np

from common import curve
from common.errors import UserError

COMPILING = "Compiling the update: this takes a few seconds, once."


class Training:
    """One training, as a `with` block around the chapter's loop.

    However the block ends, what was learned is saved with agent.save() and the
    curve so far is drawn, and a line says where: at the last episode, at Ctrl-C
    or SIGTERM, at an error. Only weights that are not finite are never saved, nor
    those that no update has touched.

    Args:
        agent: has save(), `losses` (None before the first update) and `compiler`.
        algorithm, env_id, seed: for the curve's title and file name.
        image_dir: folder of the curve.
        episodes: how many the loop intends to play.
    """

    def __init__(self, agent, algorithm, env_id, seed, image_dir, episodes):
        self.agent = agent
        self.title = (algorithm, env_id, seed)
        self.image = curve.path(image_dir, algorithm, env_id)
        self.episodes = episodes
        self.episode_reward = []
        self.running_reward = []  # the chapter's curve

    def __enter__(self):
        self.start = time.time()
        return self

    def episode(self, episode_reward):
        """Note an episode's reward, print the chapter's line, check that learning is sound.

        Raises:
            UserError: a loss or weight is not finite.
        """
        self.episode_reward.append(episode_reward)
        if not self.running_reward:
            self.running_reward.append(episode_reward)
        else:
            self.running_reward.append(self.running_reward[-1] * 0.9 + episode_reward * 0.1)
        episode = len(self.episode_reward)
        episode_line("Training", episode, self.episodes, episode_reward, self.start)
        self._check_finite()

    def __exit__(self, kind, error, traceback):
        learned = self.agent.losses is not None
        if learned and kind is not None:
            self._check_finite()
        if learned:
            print(f"Saved {self.agent.save()}")
        else:
            print("No update was made in this run: saved weights are left as they were.")
        if self.episode_reward:
            curve.save(self.image, self.episode_reward, self.running_reward, *self.title)
            print(f"Saved {self.image}", flush=True)

    def _check_finite(self):
        losses = self.agent.losses
        if losses is None:
            return
        if not (np.isfinite(losses.numpy()).all() and self.agent.compiler.all_finite()):
            raise UserError(
                f"a loss or weight is no longer finite (episode {len(self.episode_reward)}): "
                "nothing was saved; try smaller learning rates or another --reward-scale"
            )


def episode_line(phase, episode, episodes, episode_reward, start):
    """Print the chapter's line about one episode; `start` is the run's time.time() at 0."""
    print(
        f"{phase} | Episode: {episode}/{episodes} | Episode Reward: {episode_reward:.4f} "
        f"| Running Time: {time.time() - start:.4f}",
        flush=True,
    )


def test_summary(rewards):
    """Print mean and standard deviation of the test episodes' rewards."""
    print(
        f"Testing | Episodes: {len(rewards)} | Mean: {np.mean(rewards):.4f} "
        f"| Standard Deviation: {np.std(rewards):.4f}"
    )
    sys.stdout.flush()
