"""One test around the chapter's loop: a window or a film, and what to say in the end."""

import contextlib

import numpy as np

from common.files.names import picture_path
from common.pendulum import explain, page


@contextlib.contextmanager
def Testing(agent, env, settings):  # as a class, for it stands where Training does
    """A test, as a `with` block that gives the Environment to play in.

    A window shows it, or its first episode is filmed. The training's environment is closed
    first, for a simulator may be open only once. At the end of the block the mean and standard
    deviation are printed, and with --explain or --page what was learned is shown.

    Args:
        agent: that plays.
        env: the Environment it was trained in.
        settings: Settings of the run.
    """
    env.close()
    record, picture = settings.record, picture_path(settings.image_dir, *settings.task)
    if record is True:  # beside the curve, and named as it is: image/td3.gif
        record = picture.with_suffix(".gif")
    env = env.another(render=True, record=record)
    try:
        env.seed(settings.seed)
        yield env
    except BaseException:
        env.close(film=False)
        raise
    print(f"Testing | Episodes: {len(env.returns)} | Mean: {np.mean(env.returns):.4f} "
          f"| Standard Deviation: {np.std(env.returns):.4f}")
    env.close()
    if settings.explain:
        explain.save(agent, settings)
    if settings.page:
        page.save(agent, settings)
