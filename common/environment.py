"""The chapter's reset / step / seed / render, whichever library the environment comes from.

The chapter speaks to gym as it was when it was written. Since then gym 0.26 has changed
what `reset` and `step` return, and Gymnasium has taken gym's place. `Environment` hides
the difference, and what the networks cannot use: they take a state *vector* and give
actions in [-action_range, action_range].
"""

import contextlib
import difflib
import functools
import importlib
import inspect
import io
import math
import os
import sys
import traceback
import warnings
import weakref

import numpy as np

from common import film, output, signals
from common.errors import UserError
from common.spaces import one_line, symmetric_space, vector_space

_TIME_LIMIT = "TimeLimit.truncated"  # gym's own key
_FLOAT32 = np.dtype(np.float32)
_LARGEST = float(np.finfo(np.float32).max)
# A float64 that becomes infinite in float32 is refused; NumPy's line on top of that is not needed.
warnings.filterwarnings("ignore", "overflow encountered in cast", module=__name__)
_TUPLE = (tuple, list)
_INFO = (dict, type(None))
_BOOLS = (False, True)

# What a failing environment asks for -> what to do. The libraries' own advice (gym[box2d],
# gym[mujoco]) pins versions that no longer install.
_MISSING = {
    "pygame": "pip install pygame",
    "mujoco_py": "take its -v4 and pip install mujoco imageio",
    "gymnasium-robotics": "take its -v4 and pip install mujoco imageio",
    "mujoco": "pip install mujoco imageio",
    "box2d": "pip install box2d",
}


class Environment:
    """An environment of gym (API before or after 0.26) or Gymnasium with the chapter's interface.

    observation_space: Box of shape (state_dim,), float32.
    action_space: Box(-action_range, action_range) of shape (action_dim,), float32;
        `step` moves the action to the environment's own interval.
    env_id, max_episode_steps (None: no limit): as registered.

    It is closed by close(), or when it is no longer used, or when the process ends.

    Raises UserError where the networks cannot play: actions that are not bounded real
    numbers, observations that are images or have no fixed length. reset() and step() raise it
    where the environment raises, even SystemExit, and where it returns what nobody can learn
    from, before anyone has seen it: another number of observations than its space has, NaN,
    infinity, no numbers. What was learned until then is good.
    """

    def __init__(self, env, env_id=None, rebuild=None, unit_actions=False):
        """Wrap `env`.

        rebuild: makes the same environment without a window; given if `env` has one.
        unit_actions: the agent's actions are in [-1, 1] in each dimension; `step` scales them.
        """
        spec = getattr(env, "spec", None)
        inner = getattr(env, "unwrapped", env)
        self.env_id = env_id or getattr(spec, "id", None) or type(inner).__name__
        self.max_episode_steps = getattr(spec, "max_episode_steps", None)
        self._hold(env)
        self._rebuild = rebuild

        self._seed_at_reset = _reset_takes_seed(env)
        self._reset_options = {}
        # gym's own wrapper for it speaks the new API only.
        self._limit = math.inf if self._seed_at_reset else self.max_episode_steps or math.inf
        self._steps = 0  # of this episode
        self._last = None  # its last state; None before the first reset()

        space, box = _space(env, "observation_space"), _space(env, "action_space")
        try:
            self.observation_space, self._flatten = vector_space(space, self.env_id)
            self.action_space = symmetric_space(box, self.env_id)
        except UserError:
            self.close()
            raise
        self._state_dim = self.observation_space.shape[0]
        self._low, self._high, self._shape, self._dtype = box.low, box.high, box.shape, box.dtype
        if rebuild is not None and box.dtype == np.float32:
            # gym 0.26 hands Pendulum's torque to pygame, which takes NumPy's float64 (a Python
            # float) for a number and its float32 not; from NumPy 2 on it would stay float32.
            self._dtype = np.dtype(np.float64)
        centre = ((box.low.astype(np.float64) + box.high) / 2).astype(box.dtype)
        self._centre = centre if centre.any() else None
        self._scale = None
        if unit_actions:
            self._scale = self.action_space.high.astype(self._dtype).reshape(self._shape)
            self.action_space = type(self.action_space)(-1.0, 1.0, self.action_space.shape)

    def _hold(self, env):
        self._env = env
        self._finalizer = weakref.finalize(self, _close, env, self.env_id)

    @property
    def unwrapped(self):
        """The environment itself, without its library's wrappers."""
        return getattr(self._env, "unwrapped", self._env)

    def seed(self, seed):
        """Fix the environment's random numbers, once: later episodes go on from there."""
        if self._seed_at_reset:
            self._reset_options = {"seed": int(seed)}
        elif hasattr(self._env, "seed"):
            self._env.seed(int(seed))
        else:
            _say_once(f"{self.env_id} takes no seed: its episodes will differ from run to run.")

    def generator_state(self):
        """The state of the environment's random numbers as a dict for JSON; None if it has none."""
        generator = self._generator()
        if isinstance(generator, np.random.RandomState):
            return generator.get_state(legacy=False)
        return generator.bit_generator.state if generator is not None else None

    def restore_generator(self, state):
        """Go on with the random numbers of generator_state(), between two episodes."""
        generator = self._generator()
        if state is None or generator is None:
            return
        self._reset_options = {}
        if isinstance(generator, np.random.RandomState):
            generator.set_state(state)
        else:
            generator.bit_generator.state = state

    @contextlib.contextmanager
    def lent(self):
        """Others play, between two episodes; random numbers and seed go on as if nobody had."""
        options, state = self._reset_options, self.generator_state()
        try:
            yield self
        finally:
            self.restore_generator(state)
            self._reset_options = options

    @property
    def started(self):
        """Whether there has been a reset(): some simulators are opened only there."""
        return self._last is not None

    def _generator(self):
        generator = getattr(self.unwrapped, "np_random", None)
        known = (np.random.Generator, np.random.RandomState)
        return generator if isinstance(generator, known) else None

    def reset(self, seed=None):
        """Start an episode; return its first state, float32 of shape (state_dim,)."""
        if seed is not None:
            self.seed(seed)
        options, self._reset_options = self._reset_options, {}
        self._steps = 0
        # A window may fail after random numbers have been drawn.
        generator = self.generator_state() if self._rebuild is not None else None
        while True:
            try:
                result = self._env.reset(**options)
                if self._rebuild is not None:
                    _check_that_it_shows()
                break
            except BaseException as error:
                if _is_ours(error):
                    raise
                if not self._without_window(generator):
                    raise self._failed("reset", error) from error
                _say_window_failed(error)
        if isinstance(result, _TUPLE) and len(result) == 2 and isinstance(result[1], _INFO):
            result = result[0]  # before gym 0.26, it was all
        self._last = self._state("reset", result)
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
        action = np.minimum(np.maximum(action, self._low), self._high)
        self._steps += 1
        self._action = action
        try:
            result = self._env.step(action)
        except BaseException as error:
            if _is_ours(error):
                raise
            if not self.started or not self._without_window():
                raise self._failed("step", error) from error
            _say_window_failed(error, "this episode ends here, ")
            return self._last.copy(), 0.0, False, {_TIME_LIMIT: True}
        try:
            if not isinstance(result, _TUPLE) or not isinstance(result[-1], _INFO):
                raise TypeError
            info = dict(result[-1] or ())
            if len(result) == 5:
                observation, reward, terminal, truncated, _ = result
            else:
                observation, reward, terminal, _ = result
                truncated = info.get(_TIME_LIMIT, False)
            if terminal not in _BOOLS or truncated not in _BOOLS:
                raise TypeError
            if len(result) == 4:  # one bool for both
                truncated = terminal and truncated
                terminal = terminal and not truncated
            done = bool(terminal)  # NumPy's bool_ fails the chapter's `done is True`
            info[_TIME_LIMIT] = (bool(truncated) or self._steps >= self._limit) and not done
        except (IndexError, TypeError, ValueError) as error:
            due = "no observation, reward, terminated, truncated (two bools) and info (a dict)"
            raise self._error("step", f"returned {one_line(result)}, {due}") from error
        state = self._state("step", observation)
        reward = self._number(reward)
        self._last = state
        signals.check()
        return state, reward, done, info

    def render(self):
        """Nothing to do: from gym 0.26 on an open window draws itself, at each step."""

    def close(self):
        """Free the environment and its window, the first time; says if that fails, never raises."""
        self._finalizer()

    def _error(self, call, what, step="correct that or take another --env"):
        at = f", at step {self._steps}" if call == "step" else ""
        if call == "step" and not np.isfinite(self._action).all():
            what = f"was given the action {one_line(self._action)}"
            step = "the policy is no longer finite: try smaller learning rates"
        return UserError(f"--env {self.env_id}: its {call}() {what}{at}; {step}")

    def _failed(self, call, error):
        step = "--verbose shows where"
        if call == "reset" and "unexpected keyword argument" in str(error):
            step = (
                "write def reset(self, seed=None, options=None) and in it super().reset(seed=seed)"
            )
        return self._error(call, f"failed ({one_line(error)})", step)

    def _state(self, call, observation):
        """An observation as a state: a copy, for some environments write into the same array."""
        try:
            flat = observation if self._flatten is None else self._flatten(observation)
            flat = np.asarray(flat)
            if flat.dtype.kind not in "fiub":  # None would become NaN, a text a number
                raise TypeError("no numbers")
            state = flat.astype(_FLOAT32).reshape(-1)
        except Exception as error:
            what = f"returned the observation {one_line(observation)}, no numbers"
            raise self._error(call, what) from error
        if state.size != self._state_dim:
            due = f"its observation_space says {self._state_dim}"
            raise self._error(call, f"returned an observation of {state.size} numbers, {due}")
        if state.size < 64:  # faster then, and a sum of float32 in Python's floats is finite
            finite = math.isfinite(sum(state.tolist()))
        else:
            finite = np.count_nonzero(np.isfinite(state)) == state.size
        if not finite:
            raise self._error(call, f"returned the observation {one_line(state)}, not finite")
        return state

    def _number(self, reward):
        """A reward as a float."""
        number = reward
        try:
            if not isinstance(reward, (float, np.floating)):
                array = np.asarray(reward)
                if array.size != 1 or array.dtype.kind in "US":  # float() reads texts
                    raise TypeError("not one number")
                number = array.item()
            number = float(number)
            if not -_LARGEST <= number <= _LARGEST:
                raise OverflowError("not finite")
        except Exception as error:
            what = f"returned the reward {one_line(reward)}, no finite number in float32"
            raise self._error("step", what) from error
        return number

    def _without_window(self, generator=None):
        """Go on with an environment that has no window; returns whether this one had."""
        rebuild, self._rebuild = self._rebuild, None
        if rebuild is None:
            return False
        generator = generator or self.generator_state()
        self.close()
        try:
            self._hold(rebuild())
        except Exception:  # the window was not the reason
            return False
        self.restore_generator(generator)
        return True


class _Filmed(Environment):
    """An environment that films its first episode, off the screen.

    Each render() takes a frame, and the end of the episode one of the last state. The file
    is written when the second episode begins, or by close(), which says where it is.
    """

    def __init__(self, env, env_id, path, unit_actions):
        super().__init__(env, env_id, unit_actions=unit_actions)
        fps = _metadata(env).get("render_fps")
        sound = isinstance(fps, (int, float)) and 0 < fps < math.inf
        self._film = film.Film(path, fps if sound else 30)
        self._filming = None  # None: not yet
        self._saved = False

    def reset(self, seed=None):
        self._finish()
        state = super().reset(seed)
        if self._filming is None:
            self._filming = True
        return state

    def render(self):
        """Film the state, in the first episode; raises UserError if it cannot be drawn."""
        if not self._filming:
            return
        try:
            self._film.add(self._draw())
        except BaseException as error:
            if _is_ours(error):
                raise
            self._filming = False
            raise _cannot_be_drawn(self.env_id, error) from error

    def close(self):
        """Finish the film and free the environment."""
        try:
            self._finish()
        finally:
            super().close()
        if self._saved:
            print(f"Saved {self._film.path}", flush=True)
            self._saved = False

    def _finish(self):
        self.render()
        if self._filming:
            self._filming = False
            self._film.save()
            self._saved = True

    def _draw(self):
        # gym 0.26 hands numbers of the environment to pygame, which does not take NumPy's
        # float32 for one (see Environment). Float64 actions would change the rewards, by
        # rounding; here the state need not change, so the film is of what is played unfilmed.
        attributes = vars(self.unwrapped)
        narrow = {name: x for name, x in attributes.items() if isinstance(x, np.float32)}
        attributes.update({name: float(x) for name, x in narrow.items()})
        try:
            return self._env.render()
        finally:
            attributes.update(narrow)


def make(env_id, render=False, record=None, unit_actions=False):
    """Make the environment that `--env` names.

    env_id: an id of gym or, where gym does not know it, of Gymnasium; `gymnasium:ID` asks
        for Gymnasium's. `module:ID` first imports the module that registers it, which may
        lie in the current folder.
    render: open a window; where there can be none, say so in one line and play without.
    record: str or Path of a .gif or .mp4 file for a film of the first episode: each
        render() takes a frame, close() finishes. Opens no window, whatever `render` says.
    unit_actions: as for Environment.
    Raises UserError if there is no such environment, it lacks a package, it cannot be
    made, or the networks cannot play it; with `record`, also if it cannot be filmed.
    """
    if record is not None:
        film.check(record)
        # There are environments that open a window to draw anything at all.
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    os.environ.setdefault("SDL_AUDIODRIVER", "dummy")  # or ALSA complains, without a sound card
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "hide")
    # Or SDL draws through OpenGL, whose software drivers bring an LLVM of their own, which
    # gets mixed up with the one in TensorFlow: a segmentation fault.
    os.environ.setdefault("SDL_FRAMEBUFFER_ACCELERATION", "0")
    library, env_id = _find(env_id)
    build = functools.partial(_build, library, env_id.rpartition(":")[2])
    try:
        if record is not None:
            env, window = _with_pictures(build, env_id), False
        else:
            env, window = _with_window(build, env_id) if render else (build(), False)
    except BaseException as error:
        if _is_ours(error):
            raise
        raise UserError(_why_not_made(env_id, library.__name__, error)) from error
    if record is not None:
        return _Filmed(env, env_id, record, unit_actions)
    return Environment(env, env_id, build if window else None, unit_actions)


def _find(env_id):
    """The library that knows `env_id`, and the id to run (Pendulum-v0 has a successor)."""
    only_gymnasium = env_id.startswith("gymnasium:")
    module, _, name = env_id.removeprefix("gymnasium:").rpartition(":")
    known, failures = [], []
    for library_name in ["gymnasium"] if only_gymnasium else ["gym", "gymnasium"]:
        try:
            library = _import_quietly(library_name)
        except Exception as error:  # not installed, or too old for this NumPy
            failures.append(one_line(error))
            continue
        if module:
            _import_theirs(module, env_id)
        ids = list(library.envs.registration.registry)
        if name == "Pendulum-v0" and name not in ids and "Pendulum-v1" in ids:
            output.say("Gym replaced Pendulum-v0 with Pendulum-v1: Pendulum-v1 runs.")
            return library, env_id.replace("Pendulum-v0", "Pendulum-v1")
        # The libraries also take a name without its version.
        if name in ids or name in {known_id.rpartition("-v")[0] for known_id in ids}:
            return library, env_id
        known += ids
    if not known:
        raise UserError(f"--env {env_id}: {'; '.join(failures)}; pip install gymnasium.")
    near = difflib.get_close_matches(name, dict.fromkeys(known)) or ["Pendulum-v1"]
    prefix = f"{module}:" if module else ""
    near = " or ".join(prefix + known_id for known_id in near)
    raise UserError(f"--env {env_id}: no such environment; try {near}.")


def _import_theirs(module, env_id):
    """Import the module that registers `env_id`: an installed one, or one in the current folder."""
    here = os.getcwd()
    if here not in sys.path:
        sys.path.append(here)  # last: it hides nothing
    try:
        importlib.import_module(module)
    except BaseException as error:
        if _is_ours(error):
            raise
        reason = one_line(error)
        if isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{error.name}."):
            raise UserError(
                f"--env {env_id}: cannot import {module} ({reason}), neither in {here} nor among "
                "what is installed; start in the folder that holds it, or pip install it."
            ) from error
        package = module.partition(".")[0]
        lines = [
            (frame.f_code.co_filename, line)
            for frame, line in traceback.walk_tb(error.__traceback__)
            if frame.f_globals.get("__name__", "").partition(".")[0] == package
        ]
        if isinstance(error, SyntaxError):
            lines.append((error.filename, error.lineno))
        place = "{}, line {}".format(*lines[-1]) if lines else module
        step = _package_to_install(error) or "correct it"
        raise UserError(f"--env {env_id}: {place}: cannot import it ({reason}); {step}.") from error


def _import_quietly(name):
    """Import a module without the notices and warnings that it prints on the way."""
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        return importlib.import_module(name)


def _build(library, name, render_mode=None):
    """library.make(name) without its environment checker (slow, and fails on NumPy 2)."""
    options = {"render_mode": render_mode} if render_mode else {}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="gym")  # "out of date", Gymnasium's too
        env = library.make(name, disable_env_checker=True, **options)
    # Written for the API before gym 0.26: gym's own wrappers do not know it any more.
    return env if _reset_takes_seed(env) else env.unwrapped


def _with_window(build, env_id):
    """Build with a window if possible; return the environment and whether it has one."""
    screen = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    screen = screen or not sys.platform.startswith("linux")
    if not screen or os.environ.get("SDL_VIDEODRIVER") == "dummy":
        output.say("No display: playing on without a window.")
        return build(), False
    with contextlib.suppress(Exception):
        _import_quietly("pygame")  # it warns about setuptools; not every window needs it
    try:
        env = build(render_mode="human")
    except Exception as error:
        env = build()  # if this fails too, the window was not the reason
        _say_window_failed(error)
        return env, False
    modes = _metadata(env).get("render_modes") or ()
    if not {"human", "rgb_array", "rgb_array_list"}.intersection(modes):
        output.say(f"{env_id} has nothing to show: playing on without a window.")
        _close(env, env_id)
        return build(), False
    return env, True


def _with_pictures(build, env_id):
    """Build so that render() returns pictures; raises UserError if there are none."""
    try:
        env = build(render_mode="rgb_array")
    except Exception as error:
        _close(build(), env_id)  # if this fails too, the pictures were not the reason
        raise _cannot_be_drawn(env_id, error) from error
    if "rgb_array" not in (_metadata(env).get("render_modes") or ()):
        _close(env, env_id)
        raise UserError(f"--record: {env_id} has no pictures to film; leave out --record.")
    return env


def _metadata(env):
    metadata = getattr(env.unwrapped, "metadata", None)
    return metadata if isinstance(metadata, dict) else {}


def _cannot_be_drawn(env_id, error):
    step = _package_to_install(error)
    if step:
        return UserError(f"--record: {env_id} needs a package to be drawn; {step}.")
    reason = one_line(error)
    return UserError(f"--record: {env_id} cannot be drawn ({reason}); leave out --record.")


def _check_that_it_shows():
    """SDL, finding no screen where DISPLAY points, silently draws where nobody sees it."""
    pygame = sys.modules.get("pygame")
    if pygame is None or not pygame.display.get_init():
        return
    if pygame.display.get_driver() in ("dummy", "offscreen"):
        raise RuntimeError("SDL found no screen")


def _say_window_failed(error, end=""):
    output.say(f"The window failed ({one_line(error)}): {end}playing on without a window.")


@functools.cache
def _say_once(line):
    output.say(line)


def _is_ours(error):
    """Whether an error is no fault of the environment in whose code it struck."""
    if isinstance(error, KeyboardInterrupt):  # Ctrl-C, in a notebook; a script's raises Stopped
        return not signals.installed()
    return isinstance(error, (signals.Stopped, UserError))


def _close(env, env_id):
    try:
        getattr(env, "close", bool)()
    except BaseException as error:
        if _is_ours(error):
            raise
        with contextlib.suppress(Exception):  # the output may be closed
            print(f"--env {env_id}: its close() failed ({one_line(error)}).", flush=True)


def _space(env, name):
    """One of the environment's spaces, None if it cannot tell."""
    try:
        return getattr(env, name)
    except Exception:
        return None


def _why_not_made(env_id, library_name, error):
    """One line: the package to install, or the reason and another id to try."""
    step = _package_to_install(error)
    if step:
        return f"--env {env_id} needs a package that is not installed; {step}."
    another = f"gymnasium:{env_id}" if library_name == "gym" else "Pendulum-v1"
    own = ":" in env_id.removeprefix("gymnasium:")
    step = "--verbose shows where" if own else f"try --env {another}."
    return f"--env {env_id}: {library_name} cannot make it ({one_line(error)}); {step}"


def _package_to_install(error):
    """The step that brings the package whose lack raised `error`; None: that is not it."""
    if not isinstance(error, ImportError) and type(error).__name__ != "DependencyNotInstalled":
        return None
    reason = one_line(error).lower()
    steps = [step for package, step in _MISSING.items() if package in reason]
    if not steps and isinstance(error, ModuleNotFoundError) and error.name:
        steps = [f"pip install {error.name.partition('.')[0]}"]
    return steps[0] if steps else None


def _reset_takes_seed(env):
    """True for the API of gym from 0.26 on and Gymnasium; before, there was env.seed."""
    parameters = inspect.signature(env.reset).parameters
    if "seed" in parameters:
        return True
    if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return False
    # A wrapper takes whatever the environment inside it takes.
    return _reset_takes_seed(env.env) if hasattr(env, "env") else not hasattr(env, "seed")
