"""The chapter's reset / step / seed / render, over an environment of gym or Gymnasium.

Since the chapter was written, gym 0.26 has changed what `reset` and `step` return, and
Gymnasium has taken gym's place. `Environment` hides the difference, and what the networks
cannot use: they take a state *vector* and give actions around 0.
"""

import math
import weakref

import numpy as np

from common.errors import UserError, one_line
from common.process import Stopped
from common.tasks.film import film
from common.tasks.spaces import symmetric_space, vector_space

_LARGEST = float(np.finfo(np.float32).max)


class Environment:
    """An environment of gym 0.26 or Gymnasium with the chapter's interface.

    observation_space: Box of shape (state_dim,), float32.
    action_space: Box(-action_range, action_range) of shape (action_dim,), float32;
        `step` moves the action to the environment's own interval.
    env_id, max_episode_steps (None: no limit): as registered.
    terminal: whether the last step led to a real end, after which nothing can be earned; `done`
        is true at a time limit, too.
    returns, lengths: sum of rewards and steps of each episode so far, the present one last.

    It is closed by close(), or when it is no longer used, or when the process ends.

    Raises UserError where the networks cannot play: actions that are not bounded real
    numbers, observations that are images or have no fixed length. reset() and step() raise it
    where the environment raises, even SystemExit, and where it returns what nobody can learn
    from: another number of observations than its space has, NaN, infinity, no numbers.
    """

    def __init__(self, env, env_id, another, record=None, unit_actions=False):
        """Wrap `env`.

        another: function of render and record that makes a new Environment of the same task.
        record: file for a film of the first episode, which the next reset(), or close(), draws.
        unit_actions: the agent's actions are in [-1, 1] in each dimension; `step` scales them.
        """
        self.env_id, self.another = env_id, another
        self.max_episode_steps = env.spec.max_episode_steps if env.spec else None
        self._env, self._record, self._played = env, record, []
        self._film_error = None
        self._finalizer = weakref.finalize(self, _close, env, env_id)
        self._seed = {}  # for the next reset()
        self.terminal, self.returns, self.lengths = False, [], []
        observed, box = (getattr(env, f"{name}_space", None) for name in ("observation", "action"))
        self.observation_space, self._flatten = vector_space(observed, env_id)
        self.action_space = symmetric_space(box, env_id)
        self._state_dim = self.observation_space.shape[0]
        self._low, self._high, self._shape, self._dtype = box.low, box.high, box.shape, box.dtype
        centre = ((box.low.astype(np.float64) + box.high) / 2).astype(box.dtype)
        self._centre = centre if centre.any() else None
        self._scale = None
        if unit_actions:
            self._scale = self.action_space.high.astype(self._dtype).reshape(self._shape)
            self.action_space = type(self.action_space)(-1.0, 1.0, self.action_space.shape)

    @property
    def unwrapped(self):
        """The environment itself, without its library's wrappers."""
        return self._env.unwrapped

    def seed(self, seed):
        """Fix the environment's random numbers, once: later episodes go on from there."""
        self._seed = {"seed": int(seed)}

    def statistics(self):
        """The names of wrappers that keep statistics of their own, as NormalizeObservation does."""
        return [type(layer).__name__ for layer in _layers(self._env)
                if {"obs_rms", "return_rms"} & vars(layer).keys()]

    def _generators(self):
        """NumPy's random generators among the attributes of the environment and its wrappers."""
        getattr(self.unwrapped, "np_random", None)  # which is made at the first look
        found = {}
        for layer in _layers(self._env):
            held = dict(vars(layer))
            held |= {f"{name}.np_random": getattr(held[name], "np_random", None)
                     for name in ("observation_space", "action_space") if name in held}
            for name, value in vars(layer).items():
                if isinstance(value, list | tuple | dict):
                    items = value.items() if isinstance(value, dict) else enumerate(value)
                    held |= {f"{name}[{key}]": item for key, item in items}
            kind = type(layer).__name__
            while any(name.startswith(f"{kind}.") for name in found):  # of two wrappers of a class
                kind += "'"
            found |= {f"{kind}.{name}": value for name, value in held.items()
                      if isinstance(value, np.random.Generator | np.random.RandomState)}
        return found

    def generator_states(self):
        """The states of the environment's random generators: dict from a name to a dict."""
        return {name: generator.get_state(legacy=False)
                if isinstance(generator, np.random.RandomState) else generator.bit_generator.state
                for name, generator in self._generators().items()}

    def restore_generators(self, states):
        """Go on with the random numbers of generator_states(), between two episodes."""
        self._seed, present = {}, self._generators()
        for name, state in states.items():
            generator = present.get(name)
            try:
                if isinstance(generator, np.random.RandomState):
                    generator.set_state(state)
                else:  # None has no state, and another kind another one
                    generator.bit_generator.state = state
            except (AttributeError, KeyError, TypeError, ValueError):
                print(f"--env {self.env_id}: {name} is not there before the first reset(), so its "
                      "random numbers are not those of the training that was stopped.")

    def reset(self, seed=None):
        """Start an episode; return its first state, float32 of shape (state_dim,)."""
        self._finish_film()
        if seed is not None:
            self.seed(seed)
        options, self._seed = self._seed, {}
        if options:
            for space in self._env.observation_space, self._env.action_space:
                space.seed(options["seed"])  # there are environments that draw from them
        if self._record is not None:
            options.setdefault("seed", int(np.random.default_rng().integers(2**31)))
            self._options = options  # the film plays them again
        self.returns.append(0.0)
        self.lengths.append(0)
        try:
            result = self._env.reset(**options)
        except BaseException as error:
            raise self._blamed(error) from error
        if not (isinstance(result, tuple | list) and len(result) == 2):
            raise self._error(f"returned {one_line(result)}, not observation and info (a dict)")
        return self._state(result[0])

    def step(self, action):
        """Act for one step.

        action: shape (action_dim,), clipped to action_space.
        Returns state (float32, shape (state_dim,)), reward (float), done (bool: the episode is
        over, by its end or by a time limit; `terminal` tells which) and info (dict).
        """
        action = np.asarray(action, dtype=self._dtype).reshape(self._shape)
        if self._scale is not None:
            action = action * self._scale
        if self._centre is not None:
            action = action + self._centre
        # np.clip takes longer on so few numbers. Not in place: the array is the agent's
        # on the way in, and the environment may keep it on the way out.
        self._action = action = np.minimum(np.maximum(action, self._low), self._high)
        self.lengths[-1] += 1
        if self._record is not None:
            self._played.append(action)
        try:
            result = self._env.step(action)
        except BaseException as error:
            raise self._blamed(error) from error
        try:
            observation, reward, terminated, truncated, info = result
            if terminated not in (False, True) or truncated not in (False, True):
                raise TypeError("no bools")
        except (TypeError, ValueError) as error:
            due = "not observation, reward, terminated, truncated (two bools) and info (a dict)"
            raise self._error(f"returned {one_line(result)}, {due}") from error
        state, reward = self._state(observation), self._number(reward)
        self.returns[-1] += reward
        self.terminal = bool(terminated)
        return state, reward, bool(terminated or truncated), info

    def render(self):
        """Nothing: a window draws itself at each step, and a film when its episode is over."""

    def _finish_film(self):
        if self._record is not None and self.lengths:
            path, self._record = self._record, None
            try:
                film(path, self.env_id, self._options, self._played, self.returns[-1])
            except UserError as error:
                self._film_error = error

    def close(self, film=True):
        """Finish the film, free the environment and its window; says if freeing them fails.

        film: False leaves the film of an episode that was cut off. Raises UserError, if there could
        be none.
        """
        try:
            if film:
                self._finish_film()
        finally:
            self._finalizer()
        error, self._film_error = self._film_error, None
        if error and film:
            raise error

    def _blamed(self, error):
        """What to raise for an error out of the environment's code; a signal is not its fault."""
        if isinstance(error, (Stopped, UserError, KeyboardInterrupt)):
            return error
        step = "--verbose shows where"
        if "unexpected keyword argument" in str(error):
            step = "write def reset(self, seed=None, options=None): super().reset(seed=seed)"
        elif "expected 5, got 4" in str(error):  # of a wrapper of the library
            step = "return observation, reward, terminated, truncated (for done) and info"
        elif "bool8" in str(error):  # gym's checker meets NumPy 2
            step = "import gymnasium instead of gym, or gym.make(..., disable_env_checker=True)"
        return self._error(f"failed ({one_line(error, kind=True)})", step)

    def _error(self, what, step="correct that or take another --env"):
        steps = self.lengths[-1]
        call = f"step() {what}, at step {steps}" if steps else f"reset() {what}"
        if steps and not np.isfinite(self._action).all():
            call = f"step() was given the action {one_line(self._action)}, at step {steps}"
            step = "the policy is no longer finite: try smaller learning rates"
        return UserError(f"--env {self.env_id}: its {call}; {step}")

    def _state(self, observation):
        """An observation as a state: a copy, for some environments write into the same array."""
        try:
            flat = np.asarray(self._flatten(observation) if self._flatten else observation)
            if flat.dtype.kind == "O":  # Decimals, say; None becomes no number
                flat = np.array([float(number) for number in flat.ravel()])
            if flat.dtype.kind not in "fiub":  # None would become NaN, a text a number
                raise TypeError("no numbers")
            with np.errstate(all="ignore"):
                state = flat.astype(np.float32).reshape(self._state_dim)
            # Faster than NumPy's isfinite() on so few, and finite in Python's floats if each is.
            if not math.isfinite(sum(state.tolist())):
                raise ValueError("not finite")
        except Exception as error:
            due = f"not {self._state_dim} finite numbers ({one_line(error, kind=True)})"
            raise self._error(f"returned the observation {one_line(observation)}, {due}") from error
        return state

    def _number(self, reward):
        """A reward as a float."""
        try:
            number = reward if isinstance(reward, float) else np.asarray(reward).item()
            if isinstance(number, str | bytes):  # which float() would read
                raise TypeError("no number")
            number = float(number)
            if not -_LARGEST <= number <= _LARGEST:
                raise OverflowError("not finite")
        except Exception as error:
            what = f"returned the reward {one_line(reward)}, no finite number in float32"
            raise self._error(what) from error
        return number


def _layers(env):
    """The wrappers of an environment, outermost first, and itself."""
    while True:
        yield env
        if env.unwrapped is env:  # what it calls self.env is its own affair
            return
        env = env.env


def _close(env, env_id):
    try:
        env.close()
    except Exception as error:
        print(f"--env {env_id}: its close() failed ({one_line(error, kind=True)}).", flush=True)
