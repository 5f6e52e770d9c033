"""The chapter's reset / step / seed / render, whichever library the environment comes from.

The chapter speaks to gym as it was when it was written. Since then gym 0.26 has changed
what `reset` and `step` return, and Gymnasium has taken gym's place. `Environment` hides
the difference, and what the networks cannot use: they take a state *vector* and give
actions in [-action_range, action_range].
"""

import contextlib
import copy
import difflib
import functools
import importlib
import inspect
import io
import os
import sys
import warnings

import numpy as np

from common import film
from common.errors import UserError

_TIME_LIMIT = "TimeLimit.truncated"  # gym's own key
_SUITABLE = "choose one with bounded, continuous actions, such as Pendulum-v1"

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
    """An environment of gym (old or new) or Gymnasium with the chapter's interface.

    observation_space: Box of shape (state_dim,), float32.
    action_space: Box(-action_range, action_range) of shape (action_dim,), float32;
        `step` moves the action to the environment's own interval.
    env_id, max_episode_steps (None: no limit): as registered.

    Raises UserError where the networks cannot play: actions that are not bounded real
    numbers, observations that are images or have no fixed length.
    """

    def __init__(self, env, env_id=None, rebuild=None, window=True, unit_actions=False):
        """Wrap `env`.

        rebuild: makes the same environment without a window; given if `env` has one.
        window: False makes render() do nothing.
        unit_actions: the agent's actions are in [-1, 1] in each dimension; `step` scales them.
        """
        self._env = env
        self._rebuild = rebuild
        self._window = window
        spec = getattr(env, "spec", None)
        self.env_id = env_id or getattr(spec, "id", None) or type(self.unwrapped).__name__
        self.max_episode_steps = getattr(spec, "max_episode_steps", None)

        self._seed_at_reset = _reset_takes_seed(env)
        self._reset_options = {}
        self._new_api = False  # the first reset() tells
        self._episode = None  # what it takes to play it again, kept only beside a window

        self.observation_space, self._flatten = _vector_space(env.observation_space, self.env_id)
        self.action_space = _symmetric_space(env.action_space, self.env_id)
        box = env.action_space
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
            print(f"{self.env_id} takes no seed: its episodes will differ from run to run.")

    def generator_state(self):
        """The state of the environment's random numbers as a dict for JSON; None if it has none."""
        generator = getattr(self.unwrapped, "np_random", None)
        if isinstance(generator, np.random.RandomState):  # gym 0.21
            return generator.get_state(legacy=False)
        return generator.bit_generator.state if generator is not None else None

    def restore_generator(self, state):
        """Go on with the random numbers of generator_state(), between two episodes."""
        if state is None:
            return
        self._reset_options = {}
        generator = self.unwrapped.np_random
        if isinstance(generator, np.random.RandomState):
            generator.set_state(state)
        else:
            generator.bit_generator.state = state

    def reset(self, seed=None):
        """Start an episode; return its first state, float32 of shape (state_dim,)."""
        if seed is not None:
            self.seed(seed)
        options, self._reset_options = self._reset_options, {}
        if self._rebuild is not None:
            generator = copy.deepcopy(getattr(self.unwrapped, "np_random", None))
            self._episode = options, generator, []
        try:
            result = self._env.reset(**options)
            if self._rebuild is not None:
                _check_that_it_shows()
        except Exception as error:
            result = self._play_again_without_window(error)
            if result is None:
                raise self._failed("reset", error) from error
        self._new_api = (
            isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], dict)
        )
        return self._state(result[0] if self._new_api else result)

    def step(self, action):
        """Act for one step.

        action: shape (action_dim,), clipped to action_space.
        Returns state (float32, shape (state_dim,)), reward (float), done (bool) and info.
        `done` is True only in a terminal state. An episode that a time limit cuts short
        has done False and info["TimeLimit.truncated"] True; that key is always there.
        Raises UserError if the environment raises.
        """
        action = np.asarray(action, dtype=self._dtype).reshape(self._shape)
        if self._scale is not None:
            action = action * self._scale
        if self._centre is not None:
            action = action + self._centre
        # np.clip takes longer on so few numbers. Not in place: the array is the agent's
        # on the way in, and the environment may keep it on the way out.
        action = np.minimum(np.maximum(action, self._low), self._high)
        if self._episode is not None:
            self._episode[2].append(action)
        try:
            result = self._env.step(action)
        except Exception as error:
            result = self._play_again_without_window(error)
            if result is None:
                raise self._failed("step", error) from error
        if len(result) == 5:
            observation, reward, terminal, truncated, info = result
        else:
            observation, reward, ended, info = result
            truncated = ended and info.get(_TIME_LIMIT, False)
            terminal = ended and not truncated
        done = bool(terminal)  # NumPy's bool_ fails the chapter's `done is True`
        info = dict(info)
        info[_TIME_LIMIT] = bool(truncated) and not done
        if isinstance(reward, np.ndarray):
            reward = reward.item()
        return self._state(observation), float(reward), done, info

    def render(self):
        """Draw the state. From gym 0.26 on an open window draws itself, at each step."""
        draws_itself = self._new_api or getattr(self._env, "render_mode", None) == "human"
        if not self._window or draws_itself:
            return
        try:
            self._env.render()
            _check_that_it_shows()
        except Exception as error:
            self._window = False
            _say_window_failed(error)

    def close(self):
        """Free the environment and its window."""
        self._env.close()

    def _failed(self, what, error):
        return UserError(
            f"--env {self.env_id}: its {what}() failed ({_one_line(error)}); "
            "--verbose shows where"
        )

    def _state(self, observation):
        if self._flatten is not None:
            observation = self._flatten(observation)
        # A copy, always: some environments write the next state into the same array.
        return np.array(observation, dtype=np.float32).reshape(-1)

    def _play_again_without_window(self, error):
        """Bring an environment without a window to where `error` struck.

        If the same episode fails without a window too, the window was not at fault: then
        return None, else what the failed call should have returned.
        """
        if self._rebuild is None or self._episode is None:
            return None
        options, generator, actions = self._episode
        try:
            env = self._rebuild()
            if generator is not None:
                env.unwrapped.np_random = generator
            result = env.reset(**options)
            for action in actions:
                result = env.step(action)
        except Exception:
            return None
        with contextlib.suppress(Exception):
            self._env.close()
        self._env, self._rebuild, self._episode, self._window = env, None, None, False
        _say_window_failed(error)
        return result


class _Filmed(Environment):
    """An environment that films its first episode, off the screen.

    Each render() takes a frame, and the end of the episode one of the last state. The file
    is written when the second episode begins, or by close(), which says where it is.
    """

    def __init__(self, env, env_id, path, unit_actions):
        super().__init__(env, env_id, window=False, unit_actions=unit_actions)
        metadata = self.unwrapped.metadata
        fps = metadata.get("render_fps") or metadata.get("video.frames_per_second")  # gym 0.21
        self._film = film.Film(path, fps or 30)
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
        except Exception as error:
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
        if getattr(self._env, "render_mode", None) != "rgb_array":
            return self._env.render(mode="rgb_array")  # before gym 0.26
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
        for Gymnasium's. `module:ID` first imports the module that registers it.
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
    except UserError:
        raise
    except Exception as error:
        raise UserError(_why_not_made(env_id, library.__name__, error)) from error
    if record is not None:
        return _Filmed(env, env_id, record, unit_actions)
    rebuild = build if window else None
    return Environment(env, env_id, rebuild, window=window, unit_actions=unit_actions)


def _find(env_id):
    """The library that knows `env_id`, and the id to run (Pendulum-v0 has a successor)."""
    only_gymnasium = env_id.startswith("gymnasium:")
    module, _, name = env_id.removeprefix("gymnasium:").rpartition(":")
    known, failures = [], []
    for library_name in ["gymnasium"] if only_gymnasium else ["gym", "gymnasium"]:
        try:
            library = _import_quietly(library_name)
        except Exception as error:  # not installed, or too old for this NumPy
            failures.append(_one_line(error))
            continue
        try:
            if module:
                importlib.import_module(module)
        except Exception as error:
            raise UserError(
                f"--env {env_id}: cannot import {module} ({_one_line(error)}); start in the "
                "folder that holds it, or pip install it."
            ) from error
        registry = library.envs.registration.registry
        ids = list(registry if isinstance(registry, dict) else registry.env_specs)  # gym 0.21
        if name == "Pendulum-v0" and name not in ids and "Pendulum-v1" in ids:
            print("Gym replaced Pendulum-v0 with Pendulum-v1: Pendulum-v1 runs.")
            return library, env_id.replace("Pendulum-v0", "Pendulum-v1")
        # The libraries also take a name without its version.
        if name in ids or name in {known_id.rpartition("-v")[0] for known_id in ids}:
            return library, env_id
        known += ids
    if not known:
        raise UserError(f"--env {env_id}: {'; '.join(failures)}; pip install gymnasium.")
    near = difflib.get_close_matches(name, dict.fromkeys(known)) or ["Pendulum-v1"]
    raise UserError(f"--env {env_id}: no such environment; try {' or '.join(near)}.")


def _import_quietly(name):
    """Import a module without the notices and warnings that it prints on the way."""
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        return importlib.import_module(name)


def _build(library, name, render_mode=None):
    """library.make(name) without its environment checker (slow, and fails on NumPy 2)."""
    accepted = inspect.signature(library.make).parameters
    options = {}
    if "disable_env_checker" in accepted:
        options["disable_env_checker"] = True
        if render_mode:  # older versions take it in render()
            options["render_mode"] = render_mode
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="gym")  # "out of date", Gymnasium's too
        env = library.make(name, **options)
        if "apply_api_compatibility" in accepted and not _reset_takes_seed(env):
            # Written for the old API; gym 0.26 can limit its time only through this.
            env = library.make(name, apply_api_compatibility=True, **options)
    return env


def _with_window(build, env_id):
    """Build with a window if possible; return the environment and whether it has one."""
    screen = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    screen = screen or not sys.platform.startswith("linux")
    if not screen or os.environ.get("SDL_VIDEODRIVER") == "dummy":
        print("No display: playing on without a window.")
        return build(), False
    with contextlib.suppress(Exception):
        _import_quietly("pygame")  # it warns about setuptools; not every window needs it
    try:
        env = build(render_mode="human")
    except Exception as error:
        env = build()  # if this fails too, the window was not the reason
        _say_window_failed(error)
        return env, False
    if not {"human", "rgb_array", "rgb_array_list"}.intersection(_render_modes(env)):
        print(f"{env_id} has nothing to show: playing on without a window.")
        return build(), False
    return env, True


def _with_pictures(build, env_id):
    """Build so that render() returns pictures; raises UserError if there are none."""
    try:
        env = build(render_mode="rgb_array")
    except Exception as error:
        build()  # if this fails too, the pictures were not the reason
        raise _cannot_be_drawn(env_id, error) from error
    if "rgb_array" not in _render_modes(env):
        raise UserError(f"--record: {env_id} has no pictures to film; leave out --record.")
    return env


def _render_modes(env):
    metadata = env.unwrapped.metadata
    return metadata.get("render_modes", metadata.get("render.modes")) or ()  # gym 0.21: a dot


def _cannot_be_drawn(env_id, error):
    step = _package_to_install(error)
    if step:
        return UserError(f"--record: {env_id} needs a package to be drawn; {step}.")
    reason = _one_line(error)
    return UserError(f"--record: {env_id} cannot be drawn ({reason}); leave out --record.")


def _check_that_it_shows():
    """SDL, finding no screen where DISPLAY points, silently draws where nobody sees it."""
    pygame = sys.modules.get("pygame")
    if pygame is None or not pygame.display.get_init():
        return
    if pygame.display.get_driver() in ("dummy", "offscreen"):
        raise RuntimeError("SDL found no screen")


def _say_window_failed(error):
    print(f"The window failed ({_one_line(error)}): playing on without a window.")


def _why_not_made(env_id, library_name, error):
    """One line: the package to install, or the reason and another id to try."""
    step = _package_to_install(error)
    if step:
        return f"--env {env_id} needs a package that is not installed; {step}."
    another = f"gymnasium:{env_id}" if library_name == "gym" else "Pendulum-v1"
    reason = _one_line(error)
    return f"--env {env_id}: {library_name} cannot make it ({reason}); try --env {another}."


def _package_to_install(error):
    """The step that brings the package whose lack raised `error`; None: that is not it."""
    if not isinstance(error, ImportError) and type(error).__name__ != "DependencyNotInstalled":
        return None
    reason = _one_line(error).lower()
    steps = [step for package, step in _MISSING.items() if package in reason]
    if not steps and isinstance(error, ModuleNotFoundError) and error.name:
        steps = [f"pip install {error.name.partition('.')[0]}"]
    return steps[0] if steps else None


def _reset_takes_seed(env):
    """True for gym from 0.22 on and Gymnasium; before, there was env.seed."""
    parameters = inspect.signature(env.reset).parameters
    if "seed" in parameters:
        return True
    if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return False
    # A wrapper takes whatever the environment inside it takes.
    return _reset_takes_seed(env.env) if hasattr(env, "env") else not hasattr(env, "seed")


def _vector_space(space, env_id):
    """The float32 Box of the state; what flattens an observation, or None if it is a Box."""
    spaces = _library_of(space)
    try:
        flat = None if spaces is None or _holds_image(space) else spaces.flatten_space(space)
    except (NotImplementedError, TypeError, ValueError):
        flat = None
    if not hasattr(flat, "low"):  # a graph or a sequence flattens, but not to a Box
        raise UserError(
            f"--env {env_id}: its observations {_one_line(space)} are no vectors, which these "
            "networks take; choose one with vectors, such as Pendulum-v1."
        )
    with np.errstate(over="ignore"):  # float64's largest number stands for infinity
        low, high = flat.low.astype(np.float32), flat.high.astype(np.float32)
    is_box = isinstance(space, spaces.Box)
    flatten = None if is_box else functools.partial(spaces.flatten, space)
    return spaces.Box(low, high, dtype=np.float32), flatten


def _holds_image(space):
    parts = getattr(space, "spaces", ())
    parts = parts.values() if hasattr(parts, "values") else parts
    if any(_holds_image(part) for part in parts):
        return True
    return getattr(space, "dtype", None) == np.uint8 and len(space.shape) >= 2


def _symmetric_space(space, env_id):
    """The Box of the agent's flat actions: half the width to either side of 0."""
    actions = f"--env {env_id}: its actions {_one_line(space)}"
    spaces = _library_of(space)
    if spaces is None or not isinstance(space, spaces.Box) or space.dtype.kind != "f":
        raise UserError(f"{actions} are not continuous; {_SUITABLE}.")
    with np.errstate(over="ignore", invalid="ignore"):
        half = (space.high.astype(np.float64) - space.low) / 2
        half = half.astype(np.float32).ravel()
    if not (half < 1e30).all():  # infinite, NaN, or the largest float, which means the same
        raise UserError(f"{actions} have no bounds; {_SUITABLE}.")
    if not (half > 0).all():
        raise UserError(f"{actions} leave nothing to choose (low equals high); {_SUITABLE}.")
    return spaces.Box(-half, half, dtype=np.float32)


def _library_of(space):
    """gym.spaces or gymnasium.spaces, whichever defines `space`; None if neither does."""
    for library in (sys.modules.get("gym"), sys.modules.get("gymnasium")):
        if library is not None and isinstance(space, library.Space):
            return library.spaces
    return None


def _one_line(thing):
    text = " ".join(str(thing).split())
    return f"{type(thing).__name__}: {text}" if isinstance(thing, Exception) else text
