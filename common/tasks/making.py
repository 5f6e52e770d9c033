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
from pathlib import Path

import numpy as np

from common.errors import UserError, one_line
from common.files.names import plain_env_id, present_id
from common.process import Stopped
from common.tasks.environment import Environment
from common.tasks.film import without_display

_said = set()  # wrappers that a line has told of


def make(env_id, render=False, settings=None, record=None):
    """Make the environment that `--env` names.

    env_id: an id of gym or, where gym does not know it or cannot make it, of Gymnasium;
        `gymnasium:ID` asks for Gymnasium's. `module:ID` first imports the module that
        registers it, which may lie in the current folder.
    render: open a window; where there can be none, say so in one line and play without.
    settings: what flags.parse() returned: whether actions are in [-1, 1]. None: they are not.
    record: str or Path of a .gif or .mp4 file for a film of the first episode, written when it
        is over. Opens no window, whatever `render` says.
    Raises UserError if there is no such environment, it lacks a package, it cannot be
    made, or the networks cannot play it.
    """
    os.environ.setdefault("SDL_AUDIODRIVER", "dummy")  # or ALSA complains, without a sound card
    # Or SDL draws through OpenGL, whose software drivers bring an LLVM of their own, which
    # gets mixed up with the one in TensorFlow: a segmentation fault.
    os.environ.setdefault("SDL_FRAMEBUFFER_ACCELERATION", "0")
    env_id = present_id(env_id)
    mode = "human" if render and record is None and _is_a_screen() else None
    another = functools.partial(make, env_id, settings=settings)
    env = build(env_id, mode, drawn=record is not None)
    env = Environment(env, env_id, another, record, getattr(settings, "unit_actions", False))
    for name in {*env.statistics()} - _said:
        _said.add(name)
        print(f"{name} keeps statistics of its own, which are not saved: evaluations and --test "
              "begin with new ones.", flush=True)
    return env


def build(env_id, mode=None, drawn=False):
    """The library's environment, without its own checker, of the first library that can make it.

    mode: its render_mode. drawn: whether it is filmed, by film.py, from Gymnasium's.
    Raises UserError.
    """
    module, _, name = plain_env_id(env_id).rpartition(":")
    error, known = None, []
    for library in _libraries(env_id, mode or drawn):
        if module:
            _import_theirs(module, env_id)
        known += library.registry
        if name in library.registry:
            try:
                options = {"render_mode": mode} if mode else {}
                with _undrawn(mode), warnings.catch_warnings():
                    warnings.filterwarnings("ignore", module="gym")  # "out of date"
                    return library.make(name, disable_env_checker=True, **options)
            except (Stopped, KeyboardInterrupt):
                raise
            except BaseException as raised:
                error = error or raised
    if error is None:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {env_id.removesuffix(name)}{near[0]}?" if near else "try Pendulum-v1"
        hint = _where_it_is(module, name) or hint
        raise UserError(f"--env {env_id}: there is no such environment; {hint}")
    reason = one_line(error, kind=True).partition(", you can install")[0]  # which is the step
    if mode == "human":
        env = build(env_id)  # if this fails too, the window was not the reason
        print(f"No window can be opened ({reason}): playing on without.")
        return env
    step = _package_to_install(error) or "--verbose shows where"
    raise UserError(f"--env {env_id}: cannot be made ({reason}); {step}.") from error


@contextlib.contextmanager
def _undrawn(mode):
    """A block in which MuJoCo loads no OpenGL driver for films: see film.py."""
    chosen = os.environ.pop("MUJOCO_GL", None) if mode != "rgb_array" else None
    try:
        yield
    finally:
        if chosen is not None:
            os.environ["MUJOCO_GL"] = chosen


def _libraries(env_id, drawn):
    """gym, then Gymnasium, which draws better, too; imported without their notices."""
    names = ["gymnasium", "gym"] if drawn else ["gym", "gymnasium"]
    if env_id.startswith("gymnasium:"):
        names = ["gymnasium"]
    for name in names:
        with contextlib.redirect_stderr(io.StringIO()):
            try:
                library = importlib.import_module(f"{name}.envs.registration")
            except Exception as error:
                if name == "gym":  # not installed, or not this NumPy's, or a gym.py of the reader
                    continue
                raise UserError(f"--env {env_id}: {one_line(error)}; pip install "
                                "gymnasium.") from error
        yield library


def _import_theirs(module, env_id):
    """Import the module that registers `env_id`: an installed one, or one in the current folder."""
    here = os.getcwd()
    if here not in sys.path:
        sys.path.append(here)  # last: it hides nothing
    try:
        with np.errstate():  # what np.seterr() does there is for that module
            importlib.import_module(module)
    except (Stopped, UserError, KeyboardInterrupt):
        raise
    except BaseException as error:
        # The line of a module at which an import stopped; a SyntaxError says its own.
        lines = [f for f in traceback.extract_tb(error.__traceback__) if f.name == "<module>"]
        place = f"{lines[-1].filename}, line {lines[-1].lineno}: " if lines else ""
        step = _package_to_install(error) or "correct it"
        path, name = Path(module.removesuffix(".py")), env_id.rpartition(":")[2]
        plain = ".".join(path.parts) if "/" in module else str(path)
        if path.is_absolute() or ".." in path.parts:
            step = f"start in {path.parent} and write --env {path.name}:{name}"
        elif plain != module:
            step = f"write --env {plain}:{name}"
        elif isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{error.name}."):
            step = f"it is not in {here}: start in the folder that holds it, or pip install it"
        reason = f"cannot import {module} ({one_line(error, kind=True)})"
        raise UserError(f"--env {env_id}: {place}{reason}; {step}.") from error


def _where_it_is(module, name):
    """A hint on a module in the current folder that --env did not name, or ""."""
    if not module and name and Path(f"{name}.py").is_file():
        return f"write --env {name}:ID, with the ID that it registers"
    head, _, tail = name.rpartition(".")
    own = Path(*(module or head).split(".")).absolute().with_suffix(".py")
    if not own.is_file():
        return ""
    if not module:
        return f"write --env {head}:{tail}"
    imported = getattr(sys.modules.get(module), "__file__", None)
    if imported == str(own):
        return ""
    return f"{module} is another module ({imported or 'built in'}): rename {own.name}"


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


def _is_a_screen():
    """Whether a window would be seen: SDL, finding no screen, silently draws for nobody."""
    if not without_display():
        with contextlib.suppress(Exception):  # no pygame, or SDL may not choose and finds none
            import pygame

            pygame.display.init()
            driver = pygame.display.get_driver()
            pygame.display.quit()
            if driver not in ("dummy", "offscreen"):
                return True
    print("No display: playing on without a window.", flush=True)
    return False
