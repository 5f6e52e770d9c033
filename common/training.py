"""One training around the chapter's loop: evaluated, saved, gone on with, whatever ends it."""

import contextlib
import sys
import time

import numpy as np
from tqdm import tqdm

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
        self.evaluation = None  # made when needed
        self.open = contextlib.ExitStack()  # what is closed in the end
        self.unfinished = ""  # a line about an earlier training, whose state is to be kept
        self.noted = 0.0  # when progress was noted

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
        with self.open:  # if anything fails here, __exit__ is not called
            self.open.callback(self.env.close)
            files.check_writable(self.weights.parent, "--model-dir", self.weights.name)
            files.check_writable(self.image.parent, "--image-dir", self.image.name)
            self.open.enter_context(files.Lock(self.weights.parent))
            if self.settings.resume:
                self._resume()
            else:
                self.unfinished = checkpoint.unfinished(self.state)
                if self.unfinished:
                    print(self.unfinished)
            limit, steps = self.env.max_episode_steps, self.settings.constants["MAX_STEPS"]
            if limit is not None and limit > steps:
                print(f"Episodes of {self.settings.env_id} have {limit} steps, but --max-steps "
                      f"{steps} cuts them.")
            self.board = self.open.enter_context(
                board.Board(self.settings.tensorboard, self.progress.log_name)
            )
            self.start = time.time() - self.progress.seconds
            self._show_progress()
            if self.settings.evaluate_every and not self.progress.evaluations:
                self._evaluate()
            self.last = time.time()
            signals.hold()
            self.open = self.open.pop_all()
        return self

    def _show_progress(self):
        """Show a bar, if the output is a terminal; what is printed from now on appears above it."""
        self.bar = tqdm(
            total=self.total_steps or self.total_episodes,
            initial=self.steps if self.total_steps else self.progress.episodes,
            unit_scale=bool(self.total_steps),
            disable=None,  # where the output is no terminal
            file=sys.stdout,
            dynamic_ncols=True,
            bar_format="{n_fmt}/{total_fmt} |{bar}| {remaining} left{postfix}",
        )
        if not self.bar.disable:
            from tqdm.contrib import DummyTqdmFile  # late: it complains in a bare notebook

            above = DummyTqdmFile(sys.stdout)
            self.open.enter_context(contextlib.redirect_stdout(above))
        self.open.callback(self._hide_progress)

    def _hide_progress(self):
        with contextlib.suppress(OSError):  # a closed terminal
            self.bar.close()

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
        speed = steps / max(time.time() - self.last, 1e-9)
        self.bar.set_postfix_str(
            f"running reward {self.all_episode_reward[-1]:.1f}, {speed:.0f} steps/s", refresh=False
        )
        self.bar.update(steps if self.total_steps else 1)
        measured |= {"steps_per_second": speed, "episode_reward": done.episode_reward[-1],
                     "running_reward": self.all_episode_reward[-1]}
        if self.agent.losses is not None:
            measured |= dict(zip(self.agent.loss_names, self.agent.losses))
        self.board.write(self.steps, measured)
        every = settings.evaluate_every
        if every and (self.finished or self.steps // every > (self.steps - steps) // every):
            self._evaluate()
        if self.finished or done.episodes % settings.checkpoint_every == 0:
            self._save_state()
        self._note(self.finished)
        self.last = time.time()

    def _note(self, now):
        """Write the progress for whoever watches, but not all the time."""
        if now or time.monotonic() - self.noted > NOTE_EVERY:
            self.noted = time.monotonic()
            progress.note(self.state, self.progress)

    def _evaluate(self):
        """Play greedily from the validation starts, apart from the training and its clock."""
        began, done = time.time(), self.progress
        returns = self._play(VALIDATION_STARTS[: self.settings.evaluation_episodes])
        mean = float(np.mean(returns))
        done.evaluations.append([self.steps, returns])
        print_returns(f"Evaluation | Step: {self.steps}", returns)
        self.board.write(self.steps, {"evaluation": mean})
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
            self.progress.test_returns = self._play(TEST_STARTS)
        finally:
            self.agent.compiler.set_values(learning)  # --resume may go on from here
        print_returns(f"Test | Starts: {len(TEST_STARTS)}", self.progress.test_returns)

    def _play(self, starts):
        if self.evaluation is None:
            self.evaluation = Evaluation(
                self.settings.env_id, self.settings.constants["MAX_STEPS"],
                self.settings.unit_actions, shared=self.env,
            )
            self.open.callback(self.evaluation.close)
        return self.evaluation.returns(self.agent, starts)

    def __exit__(self, kind, error, traceback):
        signals.hold_to_the_end()
        try:
            with self.open:
                self._finish(kind is None, error)
        finally:
            stopped = signals.release()
        if stopped is not None and kind is None:
            raise stopped

    def _finish(self, finished, error):
        """Save, and say what was saved."""
        self._hide_progress()
        done = self.progress
        # An episode that was cut off is in neither curve; its updates count.
        del self.all_episode_reward[done.episodes :]
        if not finished:
            self._check_finite()
        # All is saved before anything is said: nobody may be listening any more.
        lines = self._save(collapse(done) if finished else "")
        try:
            for line in lines:
                print(line)
        except OSError as closed:
            error = closed
        why = output.lost(error)
        if why:
            stopped = "" if finished else ": training stopped"
            saved = "; what was learned is saved" if done.learned else ""
            raise UserError(f"{why} after episode {done.episodes}{stopped}{saved}") from error

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
        self.progress.seconds = time.time() - self.start
        self.progress.finished = self.finished
        everything = self.settings.everything
        checkpoint.save(
            self.state, self.agent, self.env, everything, self.progress, self.provenance
        )

    def _resume(self):
        everything = self.settings.everything
        done = checkpoint.restore(self.state, self.agent, self.env, everything, self.provenance)
        if not self.total_steps and done.episodes > self.total_episodes:
            raise UserError(
                f"{self.state} has {done.episodes} episodes already: give --episodes more"
            )
        self.progress = done
        print(f"Resumed {self.state} after {done.episodes} episodes.")


def collapse(progress):
    """What to say if the running reward lost most of what it had gained, else ""."""
    running = np.array(progress.all_episode_reward)
    if len(running) < 20:  # too few to tell from chance
        return ""
    best = 10 + int(running[10:].argmax())
    gain, loss = running[best] - running[: best + 1].min(), running[best] - running[-1]
    noise = np.std(progress.episode_reward[best - 10 : best + 1])
    if gain <= 2 * noise or loss <= gain / 2:
        return ""
    return (
        f"The running reward collapsed, from {running[best]:.1f} at episode {best + 1} to "
        f"{running[-1]:.1f} (try another --seed, smaller learning rates or --keep best)"
    )
