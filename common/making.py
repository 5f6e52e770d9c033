"""make(): from the name that `--env` gives to an Environment, with a window or a film."""

import contextlib
import difflib
import functools
import importlib
import io
import os
import sys
import traceback
import warnings

from common import output
from common.environment import Environment, is_ours, say_no_window
from common.errors import UserError
from common.files import present_id
from common.film import Film, check
from common.spaces import one_line


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
        check(record)
        # There are environments that open a window to draw anything at all.
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    os.environ.setdefault("SDL_AUDIODRIVER", "dummy")  # or ALSA complains, without a sound card
    # Or SDL draws through OpenGL, whose software drivers bring an LLVM of their own, which
    # gets mixed up with the one in TensorFlow: a segmentation fault.
    os.environ.setdefault("SDL_FRAMEBUFFER_ACCELERATION", "0")
    env_id = present_id(env_id)
    build = functools.partial(_build, _find(env_id), env_id)
    if record is not None:
        env = build("rgb_array")
        film = Film(record, env.metadata.get("render_fps") or 30)
        return Environment(env, env_id, None, film, unit_actions)
    env = build("human" if render and _there_is_a_screen() else None)
    return Environment(env, env_id, build, None, unit_actions)


def _find(env_id):
    """The library that knows `env_id`."""
    only_gymnasium = env_id.startswith("gymnasium:")
    module, colon, name = env_id.removeprefix("gymnasium:").rpartition(":")
    known = set()
    for library_name in ("gym", "gymnasium")[only_gymnasium:]:
        try:
            library = _import_quietly(library_name)
        except Exception as error:
            if library_name == "gym":  # not installed, or too old for this NumPy
                continue
            raise UserError(f"--env {env_id}: {one_line(error)}; pip install gymnasium.") from error
        if module:
            _import_theirs(module, env_id)
        if name in library.envs.registration.registry:
            return library
        known.update(library.envs.registration.registry)
    near = difflib.get_close_matches(name, known) or ["Pendulum-v1"]
    near = " or ".join(module + colon + known_id for known_id in near)
    raise UserError(f"--env {env_id}: no such environment; try {near}.")


def _import_quietly(name):
    """Import a module without the notices and warnings that it prints on the way."""
    with contextlib.redirect_stderr(io.StringIO()):
        return importlib.import_module(name)


def _import_theirs(module, env_id):
    """Import the module that registers `env_id`: an installed one, or one in the current folder."""
    here = os.getcwd()
    if here not in sys.path:
        sys.path.append(here)  # last: it hides nothing
    try:
        importlib.import_module(module)
    except BaseException as error:
        if is_ours(error):
            raise
        # The line of a module at which an import stopped; a SyntaxError says its own.
        lines = [f for f in traceback.extract_tb(error.__traceback__) if f.name == "<module>"]
        place = f"{lines[-1].filename}, line {lines[-1].lineno}: " if lines else ""
        step = _package_to_install(error) or "correct it"
        if isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{error.name}."):
            step = f"it is not in {here}: start in the folder that holds it, or pip install it"
        reason = f"cannot import {module} ({one_line(error)})"
        raise UserError(f"--env {env_id}: {place}{reason}; {step}.") from error


def _build(library, env_id, render_mode=None):
    """library.make() without its environment checker, which is slow, and fails on NumPy 2."""
    options = {"render_mode": render_mode} if render_mode else {}
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="gym")  # "out of date", Gymnasium's too
            name = env_id.rpartition(":")[2]
            return library.make(name, disable_env_checker=True, **options)
    except BaseException as error:
        if is_ours(error):
            raise
        if render_mode is not None:
            env = _build(library, env_id)  # if this fails too, drawing was not the reason
            say_no_window(error)
            return env
        package = _package_to_install(error)
        why = "a package is not installed" if package else one_line(error)
        other = library.__name__ == "gym" and ":" not in env_id
        step = f"try --env gymnasium:{env_id}" if other else "--verbose shows where"
        why = f"{library.__name__} cannot make it ({why}); {package or step}."
        raise UserError(f"--env {env_id}: {why}") from error


def _package_to_install(error):
    """The step that brings the package whose lack raised `error`; None: that is not it."""
    # The libraries' own advice (gym[box2d], gym[mujoco]) pins versions that no longer install.
    if "mujoco_py" in str(error) or "gymnasium-robotics" in str(error):
        return "take its -v5 and pip install -r requirements-envs.txt"
    if type(error).__name__ == "DependencyNotInstalled":
        return "pip install -r requirements-envs.txt"
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"pip install {error.name.partition('.')[0]}"
    return None


def _there_is_a_screen():
    """Whether a window would be seen: SDL, finding no screen, silently draws for nobody."""
    screens = {"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys()
    if screens or not sys.platform.startswith("linux"):
        with contextlib.suppress(Exception):  # no pygame, or SDL may not choose and finds none
            display = _import_quietly("pygame").display
            display.init()
            driver = display.get_driver()
            display.quit()
            if driver not in ("dummy", "offscreen"):
                return True
    output.say("No display: playing on without a window.")
    return False
