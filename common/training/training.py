"""One training around the chapter's loop: evaluated, saved, gone on with, whatever ends it."""

import contextlib
import itertools
import time

import numpy as np

from common import process
from common.errors import UserError, one_line
from common.files import names
from common.files.digest import digest
from common.files.lock import locked
from common.training import board, checkpoint, curve
from common.training.evaluation import TEST_STARTS, VALIDATION_STARTS, Evaluation, print_returns
from common.training.progress import Progress
from common.training.screen import bar

SAVING = 0.05  # share of the time that saving may take, unless --checkpoint-every is given


class Training:
    """One training, as a `with` block around the chapter's loop.

    `for episode in training(range(TRAIN_EPISODES))` gives the numbers of the episodes, and between
    two of them looks whether the losses are finite, evaluates, and saves the training's state, with
    which resume() goes on. At Ctrl-C or SIGTERM the episode is played to its end, and its state is
    saved. Where the loop does not end by itself, the block calls agent.save() and plot(), as
    the script does after the loop, and says how to go on.

    Within the block the folder of the weights is locked. What is printed appears above the bar.

    Args:
        agent: has save(), load(path), `losses` (None before the first update, then a dict of
            numbers) and greedy_actions(states).
        env: the Environment it plays; it is closed in the end.
        all_episode_reward: the chapter's running curve, a list that the loop appends to.
        settings: Settings of the run.
    """

    def __init__(self, agent, env, all_episode_reward, settings):
        self.agent, self.env, self.settings = agent, env, settings
        self.steps = settings.train_steps  # wanted, as episodes; done is what progress says
        self.episodes = settings.constants["TRAIN_EPISODES"]
        self.weights = names.weights_path(settings.model_dir, *settings.task)
        self.state = names.state_path(settings.model_dir, *settings.task)
        self.image = names.picture_path(settings.image_dir, *settings.task)
        self.progress = Progress(all_episode_reward, log_name=board.log_name(settings))
        self.digest = digest(settings.script, settings.env_id)
        self.evaluation = Evaluation(env, settings.constants["MAX_STEPS"])
        self.told = False  # to stop, which has been done
        self.saved = None  # the episode after which the state was saved
        self.left = ""  # what is said of an unfinished training that this one replaces
        self.next_save = 0.0  # when that may be done again

    @property
    def total(self):
        """How many episodes there will be: "?" where --steps ends the training."""
        return "?" if self.steps else self.episodes

    @property
    def finished(self):
        done = self.progress
        return done.steps >= self.steps if self.steps else done.episodes >= self.episodes

    def __enter__(self):
        with contextlib.ExitStack() as opened:
            opened.enter_context(contextlib.closing(self.env))
            opened.enter_context(contextlib.closing(self.evaluation))
            opened.enter_context(locked(self.weights.parent))
            opened.enter_context(process.signals_noted())
            self.opened = opened.pop_all()
        return self

    def resume(self):
        """Go on where the saved training stopped; returns the number of steps done.

        Raises:
            UserError: there is no state to go on with, or it is of another run.
        """
        constants = self.settings.everything
        done = checkpoint.restore(self.state, self.agent, self.env, constants, self.digest)
        if not self.steps and done.episodes > self.episodes:
            raise UserError(
                f"{one_line(self.state)} has {done.episodes} episodes already: give --episodes more"
            )
        self.progress.all_episode_reward[:] = done.all_episode_reward
        done.all_episode_reward = self.progress.all_episode_reward
        self.progress, self.saved = done, done.episodes
        print(f"Resumed {one_line(self.state)} after {done.episodes} episodes.")
        return done.steps

    def __call__(self, episodes):
        """The numbers of the episodes still to play, of a range or, with --steps, without end."""
        self._begin()
        done = self.progress
        to_play = itertools.count(done.episodes) if self.steps else episodes[done.episodes :]
        for episode in to_play:
            if self.finished:
                break
            yield episode
            self._episode_done()
            if not self.finished:
                try:
                    process.stop_if_told()
                except process.Stopped:
                    self._save_state()
                    self.told = True
                    raise
        if not done.learned:
            raise UserError(
                f"no update was made in {done.steps} steps, so no weights are saved: train longer, "
                "or let learning start earlier, see --help of --learn-after and --batch-size"
            )
        if done.best:
            self.agent.load(self.weights)  # the best, for the agent.save() that follows

    def _begin(self):
        """Say what will be cut or left behind, and evaluate what has learned nothing yet."""
        settings, done = self.settings, self.progress
        limit, steps = self.env.max_episode_steps, settings.constants["MAX_STEPS"]
        if limit is not None and limit > steps:
            print(f"Episodes of {settings.env_id} have {limit} steps, but --max-steps "
                  f"{steps} cuts them.")
        if self.saved is None:
            self.left = checkpoint.unfinished(self.state)
            if self.left:
                print(self.left)
        enter = self.opened.enter_context
        self.write = enter(board.board(settings.tensorboard, done.log_name))
        self.bar = enter(bar(
            total=self.steps or self.episodes, initial=done.steps if self.steps else done.episodes,
            unit_scale=bool(self.steps), bar_format="{n_fmt}/{total_fmt} |{bar}| {remaining} left"
            "{postfix}",
        ))
        self.start = time.time() - done.seconds
        if settings.evaluate_every and not done.evaluations:
            self._evaluate()
        self.last = time.time()

    def _episode_done(self):
        """Note an episode, check that learning is sound, evaluate and save when it is time."""
        done, settings, losses = self.progress, self.settings, self.agent.losses
        done.learned = done.learned or losses is not None
        if losses and not np.isfinite([*losses.values()]).all():
            raise UserError(f"a loss is no longer finite (episode {done.episodes + 1}): try "
                            "smaller learning rates or another --reward-scale")
        reward, steps = self.env.returns[-1], self.env.lengths[-1]
        done.episode_reward.append(reward)
        done.steps += steps
        running = done.all_episode_reward[-1]
        speed = steps / max(time.time() - self.last, 1e-9)
        self.bar.set_postfix_str(
            f"running reward {running:.1f}, {speed:.0f} steps/s", refresh=False
        )
        self.bar.update(steps if self.steps else 1)
        self.write(done.steps, {"steps_per_second": speed, "episode_reward": reward,
                                "running_reward": running, **(losses or {})})
        every = settings.evaluate_every
        if every and (self.finished or done.steps // every > (done.steps - steps) // every):
            self._evaluate()
        due = done.episodes - (self.saved or 0) >= settings.checkpoint_every
        if self.finished or (due and time.time() >= self.next_save):
            self._save_state()
        self.last = time.time()

    def _evaluate(self):
        """Play greedily from the validation starts, apart from the training and its clock."""
        began, done = time.time(), self.progress
        starts = VALIDATION_STARTS[: self.settings.evaluation_episodes]
        returns = self.evaluation.returns(self.agent, starts)
        mean = float(np.mean(returns))
        done.evaluations.append([done.steps, returns])
        print_returns(f"Evaluation | Step: {done.steps}", returns)
        self.write(done.steps, {"evaluation": mean})
        keep_best = self.settings.keep == "best" and done.learned
        if keep_best and (done.best is None or mean > done.best[1]):
            self.agent.save()
            done.best = [done.steps, mean]
        if self.finished:  # judge the weights that are kept
            with checkpoint.put_back(self.agent):  # --resume may go on from here
                if done.best:
                    self.agent.load(self.weights)
                done.test_returns = self.evaluation.returns(self.agent, TEST_STARTS)
            print_returns(f"Test | Starts: {len(TEST_STARTS)}", done.test_returns)
        self.start += time.time() - began

    def _save_state(self):
        """Write the training's state, the one that resume() reads."""
        done = self.progress
        if self.saved is None and self.left:
            checkpoint.set_aside(self.state)
        began = time.time()
        done.seconds, done.finished = began - self.start, self.finished
        checkpoint.save(self.state, self.agent, self.env, self.settings.everything, done,
                        self.digest)
        self.saved = done.episodes
        if "CHECKPOINT_EVERY" not in self.settings.given:
            self.next_save = began + (time.time() - began) / SAVING

    def plot(self, all_episode_reward):
        """Draw the chapter's curve and the rewards of the episodes, and print where it is."""
        title = *self.settings.task, self.settings.seed
        curve.save(self.image, self.progress.episode_reward, all_episode_reward, *title)
        print(f"Saved {one_line(self.image)}")

    def __exit__(self, kind, error, traceback):
        line = ""
        with self.opened:
            if error is None:
                process.stop_if_told()  # in the last episode, or after it
            elif self.told or not isinstance(error, process.Stopped):
                line = self._save_what_there_is(error)
        if line:  # below the bar
            print(line)

    def _save_what_there_is(self, error):
        """The loop has not ended by itself: save what was learned; returns how to go on."""
        done, agent = self.progress, self.agent
        del done.all_episode_reward[done.episodes :]  # an episode that was cut off
        finite = checkpoint.not_finite(agent) is None
        learned = done.learned or agent.losses is not None
        if not finite:  # what was learned before
            learned = bool(self.saved) and checkpoint.restore(
                self.state, agent, self.env, self.settings.everything, self.digest).learned
        if learned:
            try:
                if not done.best:  # which are saved
                    agent.save()
                if done.episodes:
                    self.plot(done.all_episode_reward)
            except UserError as another:
                print(another)
        going_on = "the same command with --resume goes on"
        if self.told:
            of = f"{done.steps} of {self.steps} steps" if self.steps else (
                f"{done.episodes} of {self.episodes} episodes")
            return f"Stopped after {of}: {going_on}."
        if self.saved and finite and (learned or not done.finished):
            going_on += f" after episode {self.saved}"
            if not isinstance(error, UserError):
                return f"Stopped in episode {done.episodes + 1}: {going_on}."
            error.args = (f"{error} ({going_on})",)
        return ""
