"""What a run shows while it goes on, and what it leaves behind."""

import contextlib
import json
import sys
import time
from pathlib import Path

import numpy as np
from tqdm import tqdm

from common import checkpoint, curve, files, film, output, signals, weights
from common.constants import constants_in
from common.errors import UserError
from common.evaluation import TEST_STARTS, VALIDATION_STARTS, Evaluation
from common.files import task_name
from common.provenance import provenance

COMPILING = "Compiling the update: this takes a few seconds, once."


class Training:
    """One training, as a `with` block around the chapter's loop.

    However the block ends, what was learned is saved with agent.save() and the
    curve so far is drawn, and a line says where: at the last episode, at Ctrl-C
    or SIGTERM, at an error. Only weights that are not finite are never saved, nor
    those that no update has touched. If the reward collapsed, the weights that are
    replaced are kept beside the new ones. With KEEP "best", those of the best
    evaluation are saved instead, when it is made.

    Within the block signals are noted; the next step of the environment stops it. Its
    folder is locked, and the environments are closed in the end.

    Args:
        agent: has save(), `losses` (None before the first update, then a tensor),
            `loss_names`, `compiler` and, for evaluations, greedy_actions(states).
        env: the Environment it plays.
        args: what arguments.parse() returned.
        constants: the script's globals().

    Attributes:
        episodes_done, steps: those of a resumed training so far, counted on.
    """

    def __init__(self, agent, env, args, constants):
        self.agent, self.env, self.args = agent, env, args
        self.constants = constants_in(constants)
        self.train_episodes = constants["TRAIN_EPISODES"]
        self.train_steps = constants["TRAIN_STEPS"]
        self.checkpoint_every = constants["CHECKPOINT_EVERY"]
        self.evaluate_every = constants["EVALUATE_EVERY"]
        self.keep_best = constants["KEEP"] == "best"
        self.algorithm, self.env_id = constants["ALG_NAME"], constants["ENV_ID"]
        self.seed = constants["RANDOM_SEED"]
        task = (self.algorithm, self.env_id, args.preset)
        self.weights = weights.path(constants["MODEL_DIR"], *task)
        self.state = checkpoint.path(constants["MODEL_DIR"], *task)
        self.image = curve.path(constants["IMAGE_DIR"], *task)
        self.episode_reward = []
        self.running_reward = []  # the chapter's curve
        self.evaluation = None  # made when needed
        self.open = contextlib.ExitStack()  # what is closed in the end
        self.provenance = provenance(constants["__file__"], self.env_id)
        self.evaluations = []  # [steps done, [return of each start]] of each
        self.best = None  # [step, mean return] of the evaluation whose weights are kept
        self.test_returns = None  # of the weights that are kept, from the test starts
        self.steps = 0
        self.said = 0.0
        self.seconds = 0.0  # of the runs that this one continues; evaluations do not count
        self.learned = False
        self.unfinished = ""  # a line about an earlier training, whose state is to be kept
        self.log_name = time.strftime(
            f"{self.algorithm.lower()}_{task_name(self.env_id, args.preset)}"
            f"_seed{self.seed}_%Y%m%d-%H%M%S"
        )

    @property
    def episodes_done(self):
        return len(self.episode_reward)

    @property
    def finished(self):
        if self.train_steps:
            return self.steps >= self.train_steps
        return self.episodes_done >= self.train_episodes

    def episodes(self):
        """Number the episodes still to play: up to TRAIN_EPISODES or, if given, TRAIN_STEPS."""
        while not self.finished:
            yield self.episodes_done

    def __enter__(self):
        with self.open:  # if anything fails here, __exit__ is not called
            self.open.callback(self.env.close)
            files.check_writable(self.weights.parent, "--model-dir", self.weights.name)
            files.check_writable(self.image.parent, "--image-dir", self.image.name)
            self.open.enter_context(files.Lock(self.weights.parent))
            if self.args.resume:
                self._resume()
            else:
                self.unfinished = checkpoint.unfinished(self.state)
                if self.unfinished:
                    print(self.unfinished, flush=True)
            limit, steps = self.env.max_episode_steps, self.constants["MAX_STEPS"]
            if limit is not None and limit > steps:
                print(
                    f"Episodes of {self.env_id} have {limit} steps, but --max-steps {steps} cuts "
                    "them.", flush=True,
                )
            self.writer = _tensorboard(self.args.tensorboard, self.log_name)
            if self.writer is not None:
                self.open.callback(self.writer.close)
            self.start = time.time() - self.seconds
            self.bar = tqdm(
                total=self.train_steps or self.train_episodes,
                initial=self.steps if self.train_steps else self.episodes_done,
                unit_scale=bool(self.train_steps),
                disable=None,  # where the output is no terminal
                file=sys.stdout,
                dynamic_ncols=True,
                bar_format="{n_fmt}/{total_fmt} |{bar}| {remaining} left{postfix}",
            )
            if self.evaluate_every and not self.evaluations:
                self._evaluate()
            self.last = time.time()
            signals.hold()
            self.open = self.open.pop_all()
        return self

    def episode(self, episode_reward, steps, **measured):
        """Note an episode, print the chapter's line, check that learning is sound.

        Args:
            episode_reward: sum of its rewards.
            steps: their number.
            measured: further numbers for TensorBoard, by name.

        Raises:
            UserError: a loss or weight is not finite, or a file cannot be written.
        """
        self.episode_reward.append(float(episode_reward))
        if not self.running_reward:
            self.running_reward.append(float(episode_reward))
        else:
            self.running_reward.append(self.running_reward[-1] * 0.9 + episode_reward * 0.1)
        self.steps += steps
        self.learned = self.learned or self.agent.losses is not None
        with tqdm.external_write_mode(file=sys.stdout):
            if self.train_steps:
                number = f"{self.episodes_done} | Step: {self.steps}/{self.train_steps}"
            else:
                number = f"{self.episodes_done}/{self.train_episodes}"
            episode_line("Training", number, episode_reward, self.start)
        self._check_finite(self.episodes_done)
        speed = steps / max(time.time() - self.last, 1e-9)
        self.bar.set_postfix_str(
            f"running reward {self.running_reward[-1]:.1f}, {speed:.0f} steps/s", refresh=False
        )
        self.bar.update(steps if self.train_steps else 1)
        if self.writer is not None:
            self._write_summaries({"steps_per_second": speed, **measured})
        if self.evaluate_every:
            before = self.steps - steps
            if self.finished or self.steps // self.evaluate_every > before // self.evaluate_every:
                self._evaluate()
        if self.finished or self.episodes_done % self.checkpoint_every == 0:
            self._save_state()
        self._say_progress()
        self.last = time.time()

    def _say_progress(self):
        """Write progress.json, for who waits for this process; at most once a second."""
        if self.finished or time.monotonic() - self.said > 1:
            self.said = time.monotonic()
            done = json.dumps({"steps": self.steps, "episodes": self.episodes_done}).encode()
            path = self.weights.with_name("progress.json")
            files.write_atomically(path, lambda file: file.write(done))

    def _evaluate(self):
        """Play greedily from the validation starts, apart from the training and its clock."""
        began = time.time()
        returns = self._play(VALIDATION_STARTS[: self.constants["EVALUATION_EPISODES"]])
        mean = float(np.mean(returns))
        self.evaluations.append([self.steps, returns])
        _print_returns(f"Evaluation | Step: {self.steps}", returns)
        if self.writer is not None:
            self._write({"evaluation": mean})
        if self.keep_best and self.learned and (self.best is None or mean > self.best[1]):
            self.agent.save()
            self.best = [self.steps, mean]
        if self.finished:
            self._test()
        self.start += time.time() - began

    def _test(self):
        """Play the weights that are kept, greedily from the test starts."""
        learning = [vector.numpy() for vector in self.agent.compiler.pack()]
        try:
            if self.best:
                self.agent.load()
            self.test_returns = self._play(TEST_STARTS)
        finally:
            self.agent.compiler.unpack_from(learning)  # --resume may go on from here
        _print_returns(f"Test | Starts: {len(TEST_STARTS)}", self.test_returns)

    def _play(self, starts):
        if self.evaluation is None:
            limit, unit_actions = self.constants["MAX_STEPS"], self.constants["UNIT_ACTIONS"]
            self.evaluation = Evaluation(self.env_id, limit, unit_actions, shared=self.env)
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
        with contextlib.suppress(OSError):  # a closed terminal
            self.bar.close()
        self.learned = self.learned or self.agent.losses is not None  # in the first episode, too
        if self.learned and not finished:
            self._check_finite(self.episodes_done + 1)
        # All is saved before anything is said: nobody may be listening any more.
        lines = self._save(self._collapse() if finished else "")
        try:
            for line in lines:
                print(line, flush=True)
        except OSError as closed:
            error = closed
        why = output.lost(error)
        if why:
            stopped = "" if finished else ": training stopped"
            saved = "; what was learned is saved" if self.learned else ""
            raise UserError(f"{why} after episode {self.episodes_done}{stopped}{saved}") from error

    def _save(self, collapse):
        """Save the weights and the curve; returns lines that say so."""
        lines = ["No update was made in this run: saved weights are left as they were."]
        if self.keep_best and self.best:
            step, mean = self.best
            lines = [f"{self.weights} has the weights of the best evaluation, {mean:.1f} at {step}"]
        elif self.keep_best:
            lines = ["No evaluation was made since the first update: saved weights are left alone."]
        elif self.learned:
            old = weights.keep_old(self.weights) if collapse else None
            lines = [f"Saved {self.agent.save()}"]
            if collapse:
                kept = f"; the weights that were there are kept as {old}" if old else ""
                lines.append(f"{collapse}{kept}.")
        if self.episode_reward:
            title = (self.algorithm, self.env_id, self.seed)
            curve.save(self.image, self.episode_reward, self.running_reward, *title)
            lines.append(f"Saved {self.image}")
        return lines

    def _collapse(self):
        """What to say if the running reward lost most of what it had gained, else ""."""
        running = np.array(self.running_reward)
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

    def _check_finite(self, episode):
        if not self.learned:
            return
        losses = self.agent.losses
        finite = losses is None or np.isfinite(losses.numpy()).all()
        if not (finite and self.agent.compiler.all_finite()):
            raise UserError(
                f"a loss or weight is no longer finite (episode {episode}): "
                "nothing was saved; try smaller learning rates or another --reward-scale"
            )

    def _save_state(self):
        """Write the training state, the one that --resume reads."""
        if self.unfinished:
            checkpoint.set_aside(self.state)
            self.unfinished = ""
        progress = {
            "episode_reward": self.episode_reward,
            "running_reward": self.running_reward,
            "steps": self.steps,
            "seconds": time.time() - self.start,
            "learned": self.learned,
            "evaluations": self.evaluations,
            "best": self.best,
            "test_returns": self.test_returns,
            "finished": self.finished,
            "log_name": self.log_name,
        }
        checkpoint.save(
            self.state, self.agent, self.env, self.constants, progress, self.provenance
        )

    def _resume(self):
        progress = checkpoint.restore(
            self.state, self.agent, self.env, self.constants, self.provenance
        )
        progress.pop("finished")
        for name, value in progress.items():
            setattr(self, name, value)
        if not self.train_steps and self.episodes_done > self.train_episodes:
            raise UserError(
                f"{self.state} has {self.episodes_done} episodes already: give --episodes more"
            )
        print(f"Resumed {self.state} after {self.episodes_done} episodes.", flush=True)

    def _write_summaries(self, measured):
        measured["episode_reward"] = self.episode_reward[-1]
        measured["running_reward"] = self.running_reward[-1]
        if self.agent.losses is not None:
            losses = zip(self.agent.loss_names, self.agent.losses.numpy(), strict=True)
            # A delayed policy has no loss in this update.
            measured.update((n, x) for n, x in losses if not (n == "loss/policy" and x == 0))
        self._write(measured)

    def _write(self, measured):
        import tensorflow as tf

        with self.writer.as_default(self.steps):
            for name, value in measured.items():
                tf.summary.scalar(name, value)


def film_path(args, constants):
    """The file that --record asks for: None, the one given, or the usual one beside the curve."""
    if args.record == "":
        task = (constants["ALG_NAME"], constants["ENV_ID"], args.preset)
        return film.path(constants["IMAGE_DIR"], *task)
    return args.record


def _tensorboard(folder, name):
    """A writer of summaries into folder/name, or None without a folder."""
    if folder is None:
        return None
    import tensorflow as tf

    try:
        return tf.summary.create_file_writer(str(Path(folder) / name))
    except tf.errors.OpError as error:
        raise UserError(
            f"--tensorboard {folder}: cannot be written ({error.message}); choose another folder"
        ) from error


def episode_line(phase, number, episode_reward, start):
    """Print the chapter's line about one episode.

    number: which it is, such as "3/100".
    start: the run's time.time() at 0.
    """
    print(
        f"{phase} | Episode: {number} | Episode Reward: {episode_reward:.4f} "
        f"| Running Time: {time.time() - start:.4f}",
        flush=True,
    )


def _print_returns(what, returns):
    """Print mean and worst of some greedy episodes' returns, above the progress bar."""
    with tqdm.external_write_mode(file=sys.stdout):
        print(f"{what} | Mean: {np.mean(returns):.4f} | Worst: {min(returns):.4f}", flush=True)


def test_summary(rewards):
    """Print mean and standard deviation of the test episodes' rewards."""
    print(
        f"Testing | Episodes: {len(rewards)} | Mean: {np.mean(rewards):.4f} "
        f"| Standard Deviation: {np.std(rewards):.4f}"
    )
    sys.stdout.flush()
