"""One test around the chapter's loop: a window or a film, and what to say in the end."""

import numpy as np

from common import curve, explain, page
from common.making import make


class Testing:
    """One test, as a `with` block around the chapter's loop.

    The training's environment is closed first, for a simulator may be open only once. At the
    end of the block the environment is closed, which finishes the film, mean and standard
    deviation are printed, and with --explain or --page what was learned is shown.

    Args:
        agent: that plays.
        env: the Environment it was trained in.
        settings: Settings of the run.

    Attributes:
        env: the Environment to play in; its render() shows it, or takes a frame of the film.
    """

    def __init__(self, agent, env, settings):
        env.close()
        self.agent, self.settings, self.rewards = agent, settings, []
        record = settings.record
        if record is True:  # beside the curve, and named as it is: image/td3.gif
            record = curve.path(settings.image_dir, *settings.task).with_suffix(".gif")
        self.env = make(settings.env_id, True, record, settings.unit_actions)
        self.env.seed(settings.seed)

    def episode_done(self, episode_reward):
        """Note an episode's sum of rewards."""
        self.rewards.append(episode_reward)

    def __enter__(self):
        return self

    def __exit__(self, kind, error, traceback):
        self.env.close()
        if kind is None:
            print(f"Testing | Episodes: {len(self.rewards)} | Mean: {np.mean(self.rewards):.4f} "
                  f"| Standard Deviation: {np.std(self.rewards):.4f}")
            if self.settings.explain:
                explain.save(self.agent, self.settings)
            if self.settings.page:
                page.save(self.agent, self.settings)
