"""The chapter's reset / step / seed / render, over an environment of any library.

Since the chapter was written, gym 0.26 has changed what `reset` and `step` return, and
Gymnasium has taken gym's place. `Environment` hides the difference, and what the networks
cannot use: they take a state *vector* and give actions around 0.
"""

import contextlib
import functools
import inspect
import math
import warnings
import weakref

import numpy as np

from common import output, signals
from common.errors import UserError
from common.spaces import one_line, symmetric_space, vector_space

_TIME_LIMIT = "TimeLimit.truncated"  # gym's own key
_LARGEST = float(np.finfo(np.float32).max)
# A float64 that becomes infinite in float32 is refused; NumPy's line on top of that is not needed.
warnings.filterwarnings("ignore", "overflow encountered in cast", module=__name__)
_say_once = functools.cache(output.say)


class Environment:
    """An environment of gym (API before or after 0.26) or Gymnasium with the chapter's interface.

    observation_space: Box of shape (state_dim,), float32.
    action_space: Box(-action_range, action_range) of shape (action_dim,), float32;
        `step` moves the action to the environment's own interval.
    env_id, max_episode_steps (None: no limit): as registered.
    started: whether there has been a reset(); some simulators are opened only there.

    It is closed by close(), or when it is no longer used, or when the process ends.

    Raises UserError where the networks cannot play: actions that are not bounded real
    numbers, observations that are images or have no fixed length. reset() and step() raise it
    where the environment raises, even SystemExit, and where it returns what nobody can learn
    from, before anyone has seen it: another number of observations than its space has, NaN,
    infinity, no numbers. What was learned until then is good.
    """

    def __init__(self, env, env_id, rebuild=None, film=None, unit_actions=False):
        """Wrap `env`.

        rebuild: makes the same environment without a window, for when the window of `env`, if
            it has one, fails: the episode ends there, and the next ones are played without.
        film: film.Film of the first episode: each render() takes a frame, and the episode's
            end one of the last state. The next reset(), or close(), saves it.
        unit_actions: the agent's actions are in [-1, 1] in each dimension; `step` scales them.
        """
        self.env_id = env_id
        self.max_episode_steps = env.spec.max_episode_steps if env.spec else None
        draws = env.render_mode is not None
        self._rebuild, self._film = rebuild if draws else None, film
        self._seed_at_reset = _reset_takes_seed(env)
        self._hold(env)
        self._reset_options = {}
        self._limit = self.max_episode_steps or math.inf
        self._steps = 0  # of this episode
        self._last = None  # its last state
        self.started = False
        observed, box = (getattr(env, f"{name}_space", None) for name in ("observation", "action"))
        self.observation_space, self._flatten = vector_space(observed, env_id)
        self.action_space = symmetric_space(box, env_id)
        self._state_dim = self.observation_space.shape[0]
        self._low, self._high, self._shape = box.low, box.high, box.shape
        # gym 0.26 hands Pendulum's torque to pygame, which takes NumPy's float64 (a Python
        # float) for a number and its float32 not; from NumPy 2 on it would stay float32.
        self._dtype = np.dtype(np.float64) if draws else box.dtype
        centre = ((box.low.astype(np.float64) + box.high) / 2).astype(box.dtype)
        self._centre = centre if centre.any() else None
        self._scale = None
        if unit_actions:
            self._scale = self.action_space.high.astype(self._dtype).reshape(self._shape)
            self.action_space = type(self.action_space)(-1.0, 1.0, self.action_space.shape)

    def _hold(self, env):
        # gym's wrappers do not understand an environment for the old API.
        self._env = env if self._seed_at_reset else env.unwrapped
        self._finalizer = weakref.finalize(self, _close, env, self.env_id)

    @property
    def unwrapped(self):
        """The environment itself, without its library's wrappers."""
        return self._env.unwrapped

    def seed(self, seed):
        """Fix the environment's random numbers, once: later episodes go on from there."""
        if self._seed_at_reset:
            self._reset_options = {"seed": int(seed)}
        elif hasattr(self._env, "seed"):
            self._env.seed(int(seed))
        else:
            _say_once(f"{self.env_id} takes no seed: its episodes will differ from run to run.")

    def _bit_generator(self):
        return getattr(getattr(self.unwrapped, "np_random", None), "bit_generator", None)

    def generator_state(self):
        """The state of the environment's random numbers as a dict for JSON; None if it has none."""
        return getattr(self._bit_generator(), "state", None)

    def restore_generator(self, state):
        """Go on with the random numbers of generator_state(), between two episodes."""
        generator = self._bit_generator()
        if state is not None and generator is not None:
            self._reset_options = {}
            generator.state = state

    @contextlib.contextmanager
    def lent(self):
        """Others play, between two episodes; random numbers and seed go on as if nobody had."""
        options, state = self._reset_options, self.generator_state()
        try:
            yield self
        finally:
            self.restore_generator(state)
            self._reset_options = options

    def reset(self, seed=None):
        """Start an episode; return its first state, float32 of shape (state_dim,)."""
        self._finish_film()
        if seed is not None:
            self.seed(seed)
        options, self._reset_options = self._reset_options, {}
        self._steps = 0
        try:
            result = self._env.reset(**options)
        except BaseException as error:
            self._without_window(error)
            self._reset_options = options
            return self.reset()
        pair = isinstance(result, tuple | list) and len(result) == 2
        if pair and isinstance(result[1], dict | None):
            result = result[0]  # before gym 0.26, it was all
        self._last = self._state(result)
        self.started = True
        return self._last

    def step(self, action):
        """Act for one step.

        action: shape (action_dim,), clipped to action_space.
        Returns state (float32, shape (state_dim,)), reward (float), done (bool) and info.
        `done` is True only in a terminal state. An episode that a time limit cuts short, or a
        window that fails, has done False and info["TimeLimit.truncated"] True; that key is
        always there.
        Raises UserError, and signals.Stopped if the training is to stop.
        """
        action = np.asarray(action, dtype=self._dtype).reshape(self._shape)
        if self._scale is not None:
            action = action * self._scale
        if self._centre is not None:
            action = action + self._centre
        # np.clip takes longer on so few numbers. Not in place: the array is the agent's
        # on the way in, and the environment may keep it on the way out.
        self._action = action = np.minimum(np.maximum(action, self._low), self._high)
        self._steps += 1
        try:
            result = self._env.step(action)
        except BaseException as error:
            self._without_window(error)
            return self._last, 0.0, False, {_TIME_LIMIT: True}
        try:
            observation, reward, *ends, info = result
            info = dict(info or ())
            old = len(ends) == 1  # before gym 0.26, one bool meant both
            terminal, truncated = (*ends, ends[0] and info.get(_TIME_LIMIT, False)) if old else ends
            if terminal not in (False, True) or truncated not in (False, True):
                raise TypeError("no bools")
        except (TypeError, ValueError) as error:
            due = "no observation, reward, terminated, truncated (two bools) and info (a dict)"
            raise self._error(f"returned {one_line(result)}, {due}") from error
        done = bool(terminal and not (old and truncated))  # no bool_, for `done is True`
        info[_TIME_LIMIT] = not done and (bool(truncated) or self._steps >= self._limit)
        state, reward = self._state(observation), self._number(reward)
        self._last = state
        signals.check()
        return state, reward, done, info

    def render(self):
        """Film the state, in the first episode; a window draws itself, from gym 0.26 on.

        Raises UserError if it cannot be drawn.
        """
        if self._film is not None:
            try:
                self._film.add(self._env.render())
            except Exception as error:
                self._film = None
                what = f"{self.env_id} cannot be drawn ({one_line(error)})"
                raise UserError(f"--record: {what}; leave out --record.") from error

    def _finish_film(self):
        if self._film is not None and self.started:
            self.render()  # the last state
            film, self._film = self._film, None
            film.save()
            print(f"Saved {film.path}", flush=True)

    def close(self):
        """Finish the film, free the environment and its window; says if freeing them fails."""
        try:
            self._finish_film()
        finally:
            self._finalizer()

    def _error(self, what, step="correct that or take another --env"):
        call = f"step() {what}, at step {self._steps}" if self._steps else f"reset() {what}"
        if self._steps and not np.isfinite(self._action).all():
            call = f"step() was given the action {one_line(self._action)}, at step {self._steps}"
            step = "the policy is no longer finite: try smaller learning rates"
        return UserError(f"--env {self.env_id}: its {call}; {step}")

    def _state(self, observation):
        """An observation as a state: a copy, for some environments write into the same array."""
        try:
            flat = np.asarray(self._flatten(observation) if self._flatten else observation)
            if flat.dtype.kind not in "fiub":  # None would become NaN, a text a number
                raise TypeError("no numbers")
            state = flat.astype(np.float32).reshape(self._state_dim)
            # Faster than NumPy's isfinite() on so few, and finite in Python's floats if each is.
            if not math.isfinite(sum(state.tolist())):
                raise ValueError("not finite")
        except Exception as error:
            due = f"not {self._state_dim} finite numbers ({one_line(error)})"
            raise self._error(f"returned the observation {one_line(observation)}, {due}") from error
        return state

    def _number(self, reward):
        """A reward as a float."""
        try:
            # An array of one is a number, a text is none.
            number = float(reward) if isinstance(reward, float) else 0.0 + np.asarray(reward).item()
            if not -_LARGEST <= number <= _LARGEST:
                raise OverflowError("not finite")
        except Exception as error:
            what = f"returned the reward {one_line(reward)}, no finite number in float32"
            raise self._error(what) from error
        return number

    def _without_window(self, error):
        """Go on without the window, which may be why a call failed; raise what else it was."""
        if is_ours(error):
            raise error
        rebuild, self._rebuild = self._rebuild, None
        if rebuild is None:
            step = "--verbose shows where"
            if not self._steps and "unexpected keyword argument" in str(error):
                step = "write def reset(self, seed=None, options=None): super().reset(seed=seed)"
            raise self._error(f"failed ({one_line(error)})", step) from error
        say_no_window(error)
        state = self.generator_state()
        self._finalizer()
        self._hold(rebuild())
        self.restore_generator(state)


def say_no_window(error):
    """Say why there is no window, or none any more."""
    output.say(f"Drawing failed ({one_line(error)}): playing on without a window.")


def is_ours(error):
    """Whether an error is no fault of the environment in whose code it struck."""
    if isinstance(error, KeyboardInterrupt):  # Ctrl-C, in a notebook; a script's raises Stopped
        return not signals.installed()
    return isinstance(error, (signals.Stopped, UserError))


def _close(env, env_id):
    try:
        env.close()
    except Exception as error:
        with contextlib.suppress(Exception):  # the output may be closed
            print(f"--env {env_id}: its close() failed ({one_line(error)}).", flush=True)


def _reset_takes_seed(env):
    """True for the API of gym from 0.26 on and Gymnasium; before, there was env.seed."""
    parameters = inspect.signature(env.reset).parameters
    if "seed" not in parameters and hasattr(env, "env"):
        return _reset_takes_seed(env.env)  # a wrapper takes what the environment inside it takes
    anything = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    return "seed" in parameters or (anything and not hasattr(env, "seed"))
