"""One training around the chapter's loop: evaluated, saved, gone on with, whatever ends it."""

import contextlib
import math
import time

import numpy as np

from common import board, checkpoint, curve, files, output, progress, signals, weights
from common.errors import UserError
from common.evaluation import TEST_STARTS, VALIDATION_STARTS, Evaluation, print_returns
from common.provenance import provenance

NOTE_EVERY = 1.0  # seconds between two notes of the progress


class Training:
    """One training, as a `with` block around the chapter's loop.

    However the block ends, what was learned is saved with agent.save() and the
    curve so far is drawn, and a line says where: at the last episode, at Ctrl-C
    or SIGTERM, at an error. Only weights that are not finite are never saved, nor
    those that no update has touched. If the reward collapsed, the weights that are
    replaced are kept beside the new ones. With --keep best, those of the best
    evaluation are saved instead, when it is made.

    Within the block signals are noted; the next step of the environment stops it. Its
    folder is locked, and the environments are closed in the end. What is printed appears
    above the progress bar.

    Args:
        agent: has save(), load(), `losses` (None before the first update, then an array),
            `loss_names`, `state_names`, `compiler` and greedy_actions(states).
        env: the Environment it plays.
        settings: Settings of the run.

    Attributes:
        all_episode_reward: the chapter's running curve, which the loop appends to.
        steps: done so far, those of a resumed training included.
    """

    def __init__(self, agent, env, settings):
        self.agent, self.env, self.settings = agent, env, settings
        self.total_steps = settings.train_steps
        self.total_episodes = settings.constants["TRAIN_EPISODES"]
        self.weights = weights.path(settings.model_dir, *settings.task)
        self.state = checkpoint.path(settings.model_dir, *settings.task)
        self.image = curve.path(settings.image_dir, *settings.task)
        self.progress = progress.Progress(log_name=board.log_name(settings))
        self.provenance = provenance(settings.script, settings.env_id)
        self.evaluation = Evaluation(settings.env_id, settings.constants["MAX_STEPS"],
                                     settings.unit_actions, shared=env)
        self.unfinished = ""  # a line about an earlier training, whose state is to be kept
        self.noted = -math.inf  # when progress was noted
        self._block = self._around()

    @property
    def all_episode_reward(self):
        return self.progress.all_episode_reward

    @property
    def steps(self):
        return self.progress.steps

    @property
    def finished(self):
        if self.total_steps:
            return self.steps >= self.total_steps
        return self.progress.episodes >= self.total_episodes

    def episodes(self):
        """Number the episodes still to play, up to TRAIN_EPISODES or, if given, --steps."""
        while not self.finished:
            yield self.progress.episodes

    def number(self, steps):
        """Which episode is over, for its line: 3/100 or, where steps count, 3, step 600/20000."""
        number = self.progress.episodes + 1
        if self.total_steps:
            return f"{number}, step {steps}/{self.total_steps}"
        return f"{number}/{self.total_episodes}"

    def __enter__(self):
        self._block.__enter__()
        return self

    def __exit__(self, *error):
        return self._block.__exit__(*error)

    @contextlib.contextmanager
    def _around(self):
        """All that is done before and after the loop, which runs at the `yield`."""
        settings = self.settings
        with contextlib.ExitStack() as opened:  # and closed in the end, whatever happens
            opened.enter_context(contextlib.closing(self.env))
            opened.enter_context(contextlib.closing(self.evaluation))
            files.check_writable(self.weights.parent, "--model-dir", self.weights.name)
            files.check_writable(self.image.parent, "--image-dir", self.image.name)
            opened.enter_context(files.locked(self.weights.parent))
            self._begin()
            summaries = board.board(settings.tensorboard, self.progress.log_name)
            self.write = opened.enter_context(summaries)
            self.start = time.time() - self.progress.seconds
            to_the_end = opened.enter_context(signals.held())
            try:
                with self._bar() as self.bar:
                    if settings.evaluate_every and not self.progress.evaluations:
                        self._evaluate()
                    self.last = time.time()
                    yield
            except BaseException as error:
                to_the_end()
                self._finish(error)
                raise
            to_the_end()
            self._finish(None)

    def _begin(self):
        """Say what this training goes on with, leaves behind, or cuts."""
        settings = self.settings
        if settings.resume:
            self.progress = done = checkpoint.restore(
                self.state, self.agent, self.env, settings.everything, self.provenance
            )
            if not self.total_steps and done.episodes > self.total_episodes:
                raise UserError(
                    f"{self.state} has {done.episodes} episodes already: give --episodes more"
                )
            print(f"Resumed {self.state} after {done.episodes} episodes.")
        else:
            self.unfinished = checkpoint.unfinished(self.state)
            if self.unfinished:
                print(self.unfinished)
        limit, steps = self.env.max_episode_steps, settings.constants["MAX_STEPS"]
        if limit is not None and limit > steps:
            print(f"Episodes of {settings.env_id} have {limit} steps, but --max-steps "
                  f"{steps} cuts them.")

    def _bar(self):
        return output.bar(
            total=self.total_steps or self.total_episodes,
            initial=self.steps if self.total_steps else self.progress.episodes,
            unit_scale=bool(self.total_steps),
            bar_format="{n_fmt}/{total_fmt} |{bar}| {remaining} left{postfix}",
        )

    def episode_done(self, episode_reward, steps, **measured):
        """Note an episode, check that learning is sound, evaluate and save when it is time.

        Args:
            episode_reward: sum of its rewards.
            steps: their number.
            measured: further numbers for TensorBoard, by name.

        Raises:
            UserError: a loss or weight is not finite, or a file cannot be written.
        """
        done, settings = self.progress, self.settings
        self._check_finite()
        done.episode_reward.append(float(episode_reward))
        done.steps += steps
        self._show(steps, measured)
        every = settings.evaluate_every
        if every and (self.finished or self.steps // every > (self.steps - steps) // every):
            self._evaluate()
        if self.finished or done.episodes % settings.checkpoint_every == 0:
            self._save_state()
        if self.finished or time.monotonic() - self.noted > NOTE_EVERY:
            self.noted = time.monotonic()
            progress.note(self.state, done)
        self.last = time.time()

    def _show(self, steps, measured):
        """Bring an episode of so many steps, and what it measured, to the bar and TensorBoard."""
        done, losses = self.progress, self.agent.losses
        speed = steps / max(time.time() - self.last, 1e-9)
        reward, running = done.episode_reward[-1], done.all_episode_reward[-1]
        self.bar.set_postfix_str(
            f"running reward {running:.1f}, {speed:.0f} steps/s", refresh=False
        )
        self.bar.update(steps if self.total_steps else 1)
        measured |= {"steps_per_second": speed, "episode_reward": reward, "running_reward": running}
        measured |= {} if losses is None else zip(self.agent.loss_names, losses)
        self.write(done.steps, measured)

    def _evaluate(self):
        """Play greedily from the validation starts, apart from the training and its clock."""
        began, done = time.time(), self.progress
        starts = VALIDATION_STARTS[: self.settings.evaluation_episodes]
        returns = self.evaluation.returns(self.agent, starts)
        mean = float(np.mean(returns))
        done.evaluations.append([self.steps, returns])
        print_returns(f"Evaluation | Step: {self.steps}", returns)
        self.write(self.steps, {"evaluation": mean})
        keep_best = self.settings.keep == "best" and done.learned
        if keep_best and (done.best is None or mean > done.best[1]):
            self.agent.save()
            done.best = [self.steps, mean]
        if self.finished:
            self._test()
        self.start += time.time() - began

    def _test(self):
        """Play the weights that are kept, greedily from the test starts."""
        learning = self.agent.compiler.values()
        try:
            if self.progress.best:
                self.agent.load()
            self.progress.test_returns = self.evaluation.returns(self.agent, TEST_STARTS)
        finally:
            self.agent.compiler.set_values(learning)  # --resume may go on from here
        print_returns(f"Test | Starts: {len(TEST_STARTS)}", self.progress.test_returns)

    def _finish(self, error):
        """Save, and say what was saved; `error` has ended the block, or None."""
        done = self.progress
        # An episode that was cut off is in neither curve; its updates count.
        del self.all_episode_reward[done.episodes :]
        if error:
            self._check_finite()
        # All is saved before anything is said: nobody may be listening any more.
        lines, stopped = self._save("" if error else done.collapse()), bool(error)
        try:
            print(*lines, sep="\n")
        except OSError as closed:
            error = closed
        why = output.lost(error)
        if why:
            why += f" after episode {done.episodes}" + ": training stopped" * stopped
            saved = "; what was learned is saved" if done.learned else ""
            raise UserError(why + saved) from error

    def _save(self, collapsed):
        """Save the weights and the curve; returns lines that say so."""
        done = self.progress
        lines = ["No update was made in this run: saved weights are left as they were."]
        if self.settings.keep == "best" and done.best:
            step, mean = done.best
            lines = [f"{self.weights} has the weights of the best evaluation, {mean:.1f} at {step}"]
        elif self.settings.keep == "best":
            lines = ["No evaluation was made since the first update: saved weights are left alone."]
        elif done.learned:
            old = weights.keep_old(self.weights) if collapsed else None
            lines = [f"Saved {self.agent.save()}"]
            if collapsed:
                kept = f"; the weights that were there are kept as {old}" if old else ""
                lines.append(f"{collapsed}{kept}.")
        if done.episode_reward:
            title = *self.settings.task, self.settings.seed
            curve.save(self.image, done.episode_reward, self.all_episode_reward, *title)
            lines.append(f"Saved {self.image}")
        return lines

    def _check_finite(self):
        """Raise a UserError unless what this episode's updates made is finite."""
        done, losses = self.progress, self.agent.losses
        done.learned = done.learned or losses is not None
        finite = losses is None or np.isfinite(losses).all()
        if done.learned and not (finite and self.agent.compiler.all_finite()):
            raise UserError(
                f"a loss or weight is no longer finite (episode {done.episodes + 1}): "
                "nothing was saved; try smaller learning rates or another --reward-scale"
            )

    def _save_state(self):
        """Write the training state, the one that --resume reads."""
        if self.unfinished:
            checkpoint.set_aside(self.state)
            self.unfinished = ""
        done = self.progress
        done.seconds, done.finished = time.time() - self.start, self.finished
        constants = self.settings.everything
        checkpoint.save(self.state, self.agent, self.env, constants, done, self.provenance)
