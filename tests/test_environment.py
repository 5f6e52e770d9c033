"""The chapter's interface over gym and Gymnasium: common/environment.py, common/making.py."""

import gc
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
import types

import gym
import gymnasium
import imageio.v3 as imageio
import numpy as np
import pytest
from test_scripts import SHORT, command
from test_scripts import environment as variables_of_a_run

from common import making, signals
from common.environment import Environment
from common.errors import UserError
from common.files import present_id
from common.making import make

ROOT = pathlib.Path(__file__).resolve().parents[1]
LIBRARIES = [gym, gymnasium]
ENVS = "pip install -r requirements-envs.txt"
PENDULUM = ["Pendulum-v1", "gymnasium:Pendulum-v1"]
UNIT = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)
IMAGE = gym.spaces.Box(0, 255, (8, 8, 3), np.uint8)
LIMIT = "TimeLimit.truncated"

each_library = pytest.mark.parametrize("library", LIBRARIES)
each_pendulum = pytest.mark.parametrize("env_id", PENDULUM)
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs X11's DISPLAY")


def wrap(env, env_id="Task-v0", **options):
    return Environment(env, env_id, **options)


class NewEnv(gym.Env):
    """The API of gym 0.26 and Gymnasium: reset(seed=) and five values from step.

    Any attribute can be given. `fault` is (place, bad, at): `bad` stands in place of one part of
    what a call returns, or all of it, at that step, or at reset (0).
    """

    observation_space = gym.spaces.Box(-10.0, 10.0, (2,), np.float32)
    action_space = UNIT
    observation, reward, end = np.zeros(2), 1, (False, False)
    fault = (None, None, None)

    def __init__(self, **attributes):
        self.seeds, self.actions = [], []
        for name, value in attributes.items():
            setattr(self, name, value)

    def reset(self, *, seed=None, options=None):
        self.seeds.append(seed)
        self.count = 0
        return self._with_fault({"observation": self.observation, "info": {}})

    def step(self, action):
        self.actions.append(action)
        self.count += 1
        terminated, truncated = self.end
        ends = {"terminated": terminated, "truncated": truncated, "info": {"from": "the env"}}
        return self._with_fault({"observation": self.observation, "reward": self.reward, **ends})

    def _with_fault(self, parts):
        place, bad, at = self.fault
        if self.count == at and place == "result":
            return bad() if callable(bad) else bad
        return tuple((parts | ({place: bad} if self.count == at else {})).values())


class OldEnv(NewEnv):
    """The API of gym 0.21: four values from step, env.seed, done at a time limit too."""

    end = (False, {})  # done, info
    closed = False
    made = 0

    def __init__(self, **attributes):
        super().__init__(**attributes)
        OldEnv.made += 1
        self.seed(0)

    def seed(self, seed=None):
        self.generator = np.random.RandomState(seed)
        return [seed]

    def reset(self):
        return self.generator.uniform(size=2)

    def step(self, action):
        return self.generator.uniform(size=2), 1, *self.end

    def close(self):
        self.closed = True


def class_of(library, **attributes):
    """A small environment class of either library; attributes override."""

    class Walk(library.Env):
        metadata = {"render_modes": ["human"], "render_fps": 30}  # noqa: RUF012
        observation_space = library.spaces.Box(-np.inf, np.inf, (1,), np.float64)
        action_space = library.spaces.Box(-1.0, 1.0, (1,), np.float32)
        instances = []  # noqa: RUF012
        ends_at = 3

        def __init__(self, render_mode=None):
            self.render_mode = render_mode
            self.closed = False
            self.instances.append(self)

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            self.steps = 0
            self.place = self.np_random.uniform()
            return np.array([self.place]), {}

        def step(self, action):
            self.steps += 1
            self.place += float(action[0]) + 0.1 * self.np_random.uniform()
            reached = np.bool_(self.steps >= self.ends_at)
            return np.array([self.place]), -1.0, reached, False, {}

        def close(self):
            self.closed = True

    for name, value in attributes.items():
        setattr(Walk, name, value)
    return Walk


def registered(library, entry_point, name="Walk-v0", **options):
    """Register an environment for one test, without a warning the second time."""
    library.envs.registration.registry.pop(name, None)
    library.register(name, entry_point=entry_point, **options)
    return name if library is gym else f"gymnasium:{name}"


def raising(error):
    """A function of any arguments that raises."""

    def fail(*args, **options):
        raise error

    return fail


def refusal(call, *args, **options):
    """The one line with which the call refuses."""
    with pytest.raises(UserError) as caught:
        call(*args, **options)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 700
    return message


def python(code, **variables):
    """Run code as a process whose variables say nothing of a screen, but for those given."""
    ours = ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER", "PYTHONWARNINGS")
    surroundings = {key: value for key, value in os.environ.items() if key not in ours}
    surroundings |= {"PYGAME_HIDE_SUPPORT_PROMPT": "hide", **variables}
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=surroundings,
                          capture_output=True, text=True, timeout=120)


@pytest.fixture
def display(monkeypatch):
    """Pretend that there is a screen (the tests' windows are fakes)."""
    monkeypatch.setattr(making, "_there_is_a_screen", lambda: True)


@pytest.fixture
def no_display(monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)


@pytest.fixture
def as_in_the_scripts(monkeypatch):
    """Ctrl-C is handled by common.signals, so that it never raises a KeyboardInterrupt."""
    monkeypatch.setattr(signal, "getsignal", lambda number: signals._handle)


# --- one interface over three APIs ---------------------------------------------------------


@each_pendulum
def test_pendulum_plays_as_the_library_plays_it(env_id):
    library = gymnasium if "gymnasium" in env_id else gym
    theirs, ours = library.make("Pendulum-v1", disable_env_checker=True), make(env_id)
    assert ours.observation_space.shape == (3,) and ours.action_space.shape == (1,)
    assert ours.action_space.high == [2.0] and ours.action_space.high.dtype == np.float32
    ours.seed(2)
    for seed in (2, None):  # the second episode goes on with the same generator
        expected, _ = theirs.reset(seed=seed)
        state = ours.reset()
        np.testing.assert_array_equal(state, expected)
        assert type(state) is np.ndarray and state.dtype == np.float32 and state.shape == (3,)
        for step in range(1, 201):
            action = np.array([2 * np.sin(step)], np.float32)
            expected, expected_reward, _, truncated, _ = theirs.step(action)
            state, reward, done, info = ours.step(action)
            np.testing.assert_array_equal(state, expected)
            assert (reward, done, info[LIMIT]) == (expected_reward, False, truncated)
            assert state.dtype == np.float32 and state.shape == (3,)
            assert type(reward) is float and type(done) is type(info[LIMIT]) is bool
        assert truncated
    assert (ours.env_id, ours.max_episode_steps) == (env_id, 200)
    assert ours.unwrapped is not ours and ours.unwrapped.max_torque == 2.0


def test_old_api():
    env, twin = wrap(OldEnv()), OldEnv()
    for each in (env, twin):
        each.seed(5)
    state = env.reset()
    assert state.dtype == np.float32
    np.testing.assert_array_equal(state, twin.reset().astype(np.float32))
    state, *others = env.step([0.5])
    np.testing.assert_array_equal(state, twin.step(None)[0].astype(np.float32))
    assert others == [1.0, False, {LIMIT: False}]
    assert (env.env_id, env.max_episode_steps) == ("Task-v0", None)
    env.close()
    assert env.unwrapped.closed


@pytest.mark.parametrize("entry_point", [OldEnv, lambda: gym.Wrapper(OldEnv())])
def test_old_class_registered_with_gym_keeps_its_time_limit(entry_point):
    OldEnv.made = 0
    env = make(registered(gym, entry_point, max_episode_steps=2))
    assert OldEnv.made == 1
    assert env.reset(seed=5) == pytest.approx(np.random.RandomState(5).uniform(size=2))
    ends = [env.step([0.0])[2:] for _ in range(2)]
    assert ends == [(False, {LIMIT: False}), (False, {LIMIT: True})]


def test_a_new_seed_serves_one_reset():
    inner = NewEnv()
    env = wrap(inner)
    env.seed(np.int64(7))
    env.reset()
    env.reset()
    env.reset(seed=8)
    assert inner.seeds == [7, None, 8]
    assert type(inner.seeds[0]) is int  # gym refuses NumPy's integers


@each_library
def test_reset_without_seed(library, capsys):
    """Before gym 0.26 it had none; Gymnasium's wrappers want it."""
    walk = class_of(
        library,
        reset=lambda self: (np.array([0.5]), {}),
        step=lambda self, action: (np.array([0.5]), 1.0, False, False, {}),
    )
    env_id = registered(library, walk, "Seedless-v0", max_episode_steps=2)
    env = make(env_id)
    if library is gymnasium:
        message = refusal(env.reset, 1)
        assert f"--env {env_id}: its reset() failed (TypeError" in message
        assert "write def reset(self, seed=None, options=None): super().reset(seed" in message
    else:
        assert env.reset(seed=1) == 0.5 and env.reset(seed=2) == 0.5
        assert [env.step([0.0])[3][LIMIT] for _ in range(2)] == [False, True]
        assert capsys.readouterr().out == (
            "Seedless-v0 takes no seed: its episodes will differ from run to run.\n"
        )


@each_pendulum
def test_the_generator_can_be_restored(env_id):
    env, other = make(env_id), make(env_id)
    env.reset(seed=3)
    other.seed(4)
    other.restore_generator(json.loads(json.dumps(env.generator_state())))
    for _ in range(3):
        np.testing.assert_array_equal(env.reset(), other.reset())


def test_lent_the_random_numbers_go_on():
    env, twin = make("Pendulum-v1"), make("Pendulum-v1")
    for each in (env, twin):
        each.seed(7)
    for _ in range(3):  # before the first reset, too
        with env.lent() as lent:
            lent.reset(seed=3)
            lent.reset()
        assert (env.reset() == twin.reset()).all()


# --- terminal states and time limits -------------------------------------------------------


@pytest.mark.parametrize(
    ("api", "end", "done", "truncated"),
    [
        (OldEnv, (False, {}), False, False),
        (OldEnv, (True, {}), True, False),
        (OldEnv, (True, None), True, False),
        (OldEnv, (np.bool_(True), {LIMIT: False}), True, False),
        (OldEnv, (np.bool_(True), {LIMIT: np.bool_(True)}), False, True),
        # left over from the last episode by an environment that returns one dict for ever
        (OldEnv, (False, {LIMIT: True}), False, False),
        (NewEnv, (False, False), False, False),
        (NewEnv, (np.bool_(True), np.bool_(False)), True, False),
        (NewEnv, (False, np.bool_(True)), False, True),
        (NewEnv, (True, True), True, False),
    ],
)
def test_how_an_episode_ends(api, end, done, truncated):
    given = dict(end[1]) if isinstance(end[1], dict) else end[1]
    env = wrap(api(end=end))
    env.reset()
    _, _, our_done, info = env.step([0.0])
    assert our_done is done and info[LIMIT] is truncated
    assert end[1] == given  # the environment's dict is its own
    assert api is OldEnv or info["from"] == "the env"


@each_library
@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        (2, [(False, False), (False, True)]),
        (3, [(False, False), (False, False), (True, False)]),  # both in the third step
        (9, [(False, False), (False, False), (True, False)]),
    ],
)
def test_registered_time_limit(library, limit, expected):
    env = make(registered(library, class_of(library), max_episode_steps=limit))
    assert env.max_episode_steps == limit
    env.reset()
    ends = [env.step([0.0])[2:] for _ in expected]
    assert [(done, info[LIMIT]) for done, info in ends] == expected
    assert all(type(done) is bool for done, _ in ends)


# --- what the environment returns is checked when it is returned ---------------------------


def first_refusal(place, bad, at):
    """Play until the environment is refused; all is well until then. Returns the line."""
    env, rewards = wrap(NewEnv(fault=(place, bad, at)), "mine:Task-v0"), []

    def play():
        for _ in range(2):
            assert np.isfinite(env.reset()).all()
            for _ in range(5):
                state, reward, _, _ = env.step([0.0])
                assert np.isfinite(state).all() and state.shape == (2,)
                rewards.append(reward)

    message = refusal(play)
    assert rewards == [1.0] * (at - 1)
    return message


OBSERVATIONS = [
    (np.zeros(3), "[0. 0. 0.]", "cannot reshape array of size 3"),
    (np.zeros(3, np.float32), "[0. 0. 0.]", "cannot reshape array of size 3"),
    (np.zeros(()), "0.0", "cannot reshape array of size 1"),
    ([1.0, np.nan], "[1.0, nan]", "ValueError: not finite"),
    (np.float32([np.inf, -np.inf]), "[ inf -inf]", "ValueError: not finite"),
    ([0.0, 1e39], "[0.0, 1e+39]", "ValueError: not finite"),  # beyond float32
    (None, "None", "TypeError: no numbers"),
    ([0.0, None], "[0.0, None]", "TypeError: no numbers"),
    ("ab", "ab", "TypeError: no numbers"),
    ("12", "12", "TypeError: no numbers"),
    (["1", "2"], "['1', '2']", "TypeError: no numbers"),
    ([[1.0], [1.0, 2.0]], "[[1.0], [1.0, 2.0]]", "inhomogeneous"),
    ({"a": 1}, "{'a': 1}", "TypeError: no numbers"),
]


@pytest.mark.filterwarnings("ignore:overflow")
@pytest.mark.parametrize("at", [0, 1, 4])
@pytest.mark.parametrize(("bad", "printed", "why"), OBSERVATIONS)
def test_an_observation_that_cannot_be(bad, printed, why, at):
    message = first_refusal("observation", bad, at)
    call, where = ("step", f", at step {at}") if at else ("reset", "")
    assert message.startswith(f"--env mine:Task-v0: its {call}() returned the observation ")
    assert f"{printed}, not 2 finite numbers (" in message and why in message
    assert message.endswith(f"){where}; correct that or take another --env")


REWARDS = [np.nan, np.inf, -1e39, np.float32("inf"), 10**400, None, "1.0", [1, 2], np.zeros(2),
           np.zeros(0), 1j, [None], {}]  # fmt: skip
RESULT = "no observation, reward, terminated, truncated (two bools) and info (a dict), at step 3"
RESULTS = [None, 1.0, "12345", (), (np.zeros(2), 1.0, False), [0] * 6]
FIRST_RESULTS = [None, (), (np.zeros(2), {}, {}), (np.zeros(2), "info"), "ab"]
ENDS = [None, "False", np.zeros(2), np.nan, 2]


@pytest.mark.parametrize(
    ("place", "bad", "at", "what"),
    [
        *(("reward", bad, 3, "no finite number in float32, at step 3; correct") for bad in REWARDS),
        *(("result", bad, 3, RESULT) for bad in RESULTS),
        *(("info", bad, 3, RESULT) for bad in ("info", [1], 3)),
        *((place, bad, 3, RESULT) for place in ("terminated", "truncated") for bad in ENDS),
        *(("result", bad, 0, "not 2 finite numbers (") for bad in FIRST_RESULTS),
    ],
)
def test_a_result_that_cannot_be(place, bad, at, what):
    message = first_refusal(place, bad, at)
    call = "step" if at else "reset"
    reward = "the reward " if place == "reward" else ""
    assert message.startswith(f"--env mine:Task-v0: its {call}() returned {reward}")
    assert what in message


@pytest.mark.parametrize("bad", ENDS)
def test_an_old_end_that_is_neither(bad):
    for end in ((bad, {}), (True, {LIMIT: bad})):
        env = wrap(OldEnv(end=end))
        env.reset()
        assert "truncated (two bools)" in refusal(env.step, [0.0])


def test_no_info_is_none():
    for at in (0, 1):
        env = wrap(NewEnv(fault=("info", None, at)))
        assert env.reset().tolist() == [0, 0]
        assert env.step([0.0])[3][LIMIT] is False


@pytest.mark.parametrize(
    "reward",
    [2.5, [2.5], (2.5,), np.float64(2.5), np.float32(2.5), np.array([2.5]), np.array([[2.5]]),
     np.float16([2.5]), np.array(2.5, object), 3.4e38],
)  # fmt: skip
def test_a_reward_that_is_one_number(reward):
    env = wrap(NewEnv(reward=reward))
    env.reset()
    given = env.step([0.0])[1]
    assert type(given) is float and given in (2.5, 3.4e38)


@pytest.mark.parametrize("size", [63, 64, 300])
def test_one_bad_number_among_many(size):
    space = gym.spaces.Box(-np.inf, np.inf, (size,), np.float32)
    observation = np.full(size, 3e38, np.float32)  # their sum is beyond float32: no false alarm
    env = wrap(NewEnv(observation_space=space, observation=observation))
    assert (env.reset() == env.step([0.0])[0]).all()
    for bad in (np.nan, np.inf):
        observation[-1] = bad
        assert "not finite" in refusal(env.step, [0.0])


def test_an_observation_that_does_not_fit_its_composed_space():
    space = gym.spaces.Dict(a=gym.spaces.Discrete(2), b=UNIT)
    for bad in (None, {"a": 0}, {"a": 0, "b": np.zeros(2)}, {"a": 0, "b": np.float32([np.nan])}):
        env = wrap(NewEnv(observation_space=space, observation=bad))
        assert refusal(env.reset).startswith("--env Task-v0: its reset() returned ")


@pytest.mark.parametrize("at", [0, 3])
@pytest.mark.parametrize(
    "error", [SystemExit("bye"), SystemExit(0), KeyboardInterrupt(), OSError()]
)
def test_what_the_environment_raises(error, at, as_in_the_scripts):
    message = first_refusal("result", raising(error), at)
    call, where = ("step", ", at step 3") if at else ("reset", "")
    reason = f"{type(error).__name__}: {error}".removesuffix(": ")
    assert f"its {call}() failed ({reason}" in message
    assert message.endswith(f"){where}; --verbose shows where")


def test_what_it_raised_is_the_cause():
    """--verbose shows it."""
    cause, error = KeyError("cause"), ZeroDivisionError("mine")
    error.__cause__ = cause
    env = wrap(NewEnv(fault=("result", raising(error), 0)))
    with pytest.raises(UserError) as caught:
        env.reset()
    assert caught.value.__cause__ is error and error.__cause__ is cause


@pytest.mark.parametrize("error", [signals.Stopped(130), KeyboardInterrupt(), UserError("ours")])
@pytest.mark.parametrize("at", [0, 3])
def test_what_stops_us_passes(error, at, monkeypatch):
    """Ctrl-C in a notebook is a KeyboardInterrupt, and a signal strikes in whatever code runs."""
    monkeypatch.setattr(signal, "getsignal", lambda number: signal.default_int_handler)
    inner = NewEnv(fault=("result", raising(error), at), render_mode="human")
    env = wrap(inner, rebuild=lambda: None)
    with pytest.raises(type(error)) as caught:
        env.reset()
        for _ in range(3):
            env.step([0.0])
    assert caught.value is error


def test_a_noted_signal_stops_between_two_steps(monkeypatch):
    env = wrap(NewEnv())
    env.reset()
    env.step([0.0])
    monkeypatch.setattr(signals._State, "noted", signal.SIGTERM)
    with pytest.raises(signals.Stopped):
        env.step([0.0])


def test_an_action_that_is_no_number_is_not_the_environments_fault():
    env = make("Pendulum-v1")
    env.reset(seed=1)
    env.step([0.5])
    message = refusal(env.step, [float("nan")])
    assert "was given the action [nan], at step 2; the policy is no longer finite" in message


@pytest.mark.slow
def test_what_was_learned_before_a_bad_step_is_saved(tmp_path):
    """And the state of the training has nothing of that step: --resume goes on."""
    flags = ["--train", "--env", "failing_environment:NotANumber-v0", "--episodes", 6]
    command_line = command("td3", *flags, "--checkpoint-every", 1, *SHORT["td3"], folder=tmp_path)
    variables = {**variables_of_a_run(), "PYTHONPATH": str(ROOT / "tests")}
    stopped, resumed = (
        subprocess.run(line, cwd=ROOT, env=variables, capture_output=True, text=True)
        for line in (command_line, [*command_line, "--resume"])
    )
    assert (stopped.returncode, resumed.returncode) == (1, 0)
    assert stopped.stderr == (
        "td3.py: --env failing_environment:NotANumber-v0: its step() returned the reward nan, "
        "no finite number in float32, at step 10; correct that or take another --env\n"
    )
    assert stopped.stdout.count("Saved ") == 2 and resumed.stderr == ""


# --- open and closed -----------------------------------------------------------------------


@each_library
def test_closed_once_and_without_a_word(library, capsys):
    """A simulator of which only one can be open at a time."""

    class Single(class_of(library)):
        def __init__(self, **options):
            if not all(other.closed for other in self.instances):
                raise OSError("Address already in use")
            super().__init__(**options)

        def close(self):
            assert not self.closed
            super().close()

    env_id = registered(library, Single)
    env = make(env_id)
    assert "Address already in use" in refusal(make, env_id)
    env.close()
    env.close()
    make(env_id)  # nobody keeps it: closed at once
    make(env_id).close()
    assert capsys.readouterr().out == ""


def test_a_close_that_fails(capsys):
    env = wrap(NewEnv(close=raising(OSError("gone"))))
    env.close()
    env.close()
    assert capsys.readouterr().out == "--env Task-v0: its close() failed (OSError: gone).\n"


@pytest.mark.parametrize("end", ["raise ValueError", "raise SystemExit", "pass"])
def test_closed_when_the_process_ends(end):
    code = (
        "from common.making import make\n"
        "from gym.envs.classic_control import PendulumEnv\n"
        "PendulumEnv.close = lambda self: print('closed')\n"
        f"env = make('Pendulum-v1'); env.reset(); {end}\n"
    )
    assert python(code).stdout == "closed\n"


# --- which environment ---------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["", "gymnasium:"])
def test_pendulum_v0_runs_as_v1_and_says_so_once(prefix, capsys):
    present_id.cache_clear()
    assert present_id(f"{prefix}Pendulum-v0") == f"{prefix}Pendulum-v1"
    env = make(f"{prefix}Pendulum-v0")
    assert env.env_id == f"{prefix}Pendulum-v1"
    assert env.unwrapped.spec.id == "Pendulum-v1"
    out = "Gym replaced Pendulum-v0 with Pendulum-v1: Pendulum-v1 runs.\n"
    assert capsys.readouterr() == (out, "")


@pytest.mark.parametrize("env_id", ["Pendulum-v1", "mine:Pendulum-v0", "Ant-v0", "", "gymnasium:"])
def test_what_else_is_asked_for_stays(env_id):
    assert present_id(env_id) == env_id


def test_gym_comes_first_and_the_prefix_asks_for_gymnasium():
    assert isinstance(make("Pendulum-v1").unwrapped, gym.Env)
    assert isinstance(make("gymnasium:Pendulum-v1").unwrapped, gymnasium.Env)
    registered(gymnasium, class_of(gymnasium), "OnlyThere-v0")
    env = make("OnlyThere-v0")
    assert isinstance(env.unwrapped, gymnasium.Env) and env.env_id == "OnlyThere-v0"


@pytest.mark.parametrize("failure", [ImportError("no gym"), AttributeError("np.bool8")])
def test_without_gym_gymnasium_serves(monkeypatch, failure):
    really = making._import_quietly
    without = {"gym": raising(failure)}
    monkeypatch.setattr(making, "_import_quietly", lambda name: without.get(name, really)(name))
    assert isinstance(make("Pendulum-v0").unwrapped, gymnasium.Env)


def test_without_any_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "gym", None)
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    message = refusal(make, "Pendulum-v1")
    assert "--env Pendulum-v1" in message and "pip install gymnasium" in message


# As in the README.
MINE = """\
import gymnasium as gym

class Task(gym.Env):  # bring a number to 0
    observation_space = gym.spaces.Box(-20, 20, (1,))
    action_space = gym.spaces.Box(-1, 1, (1,))
    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.place = self.np_random.uniform(-10, 10, 1)
        return self.place, {}
    def step(self, action):
        self.place = self.place + action
        return self.place, -abs(self.place[0]), False, False, {}

gym.register("Task-v0", Task, max_episode_steps=50)
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A current folder that is not on the path."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("mine", "helper"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield tmp_path
    for name in ("mine", "helper"):
        sys.modules.pop(name, None)


def test_a_module_in_the_current_folder(here):
    (here / "mine.py").write_text(MINE)
    (here / "json.py").write_text("raise SystemExit('hides what is installed')")
    env = make("mine:Task-v0")
    assert (env.env_id, env.max_episode_steps) == ("mine:Task-v0", 50)
    env.seed(1)
    for _ in range(2):
        assert env.reset().shape == (1,)
        assert [env.step([0.5])[3][LIMIT] for _ in range(50)] == [False] * 49 + [True]
    assert sys.path[-1] == str(here)
    assert "try mine:Task-v0" in refusal(make, "mine:Tusk-v0")


def test_a_module_that_is_not_there(here):
    message = refusal(make, "no_such_module:Mine-v0")
    assert "--env no_such_module:Mine-v0" in message and "No module named" in message
    assert f"it is not in {here}: start in the folder that holds it, or pip" in message


@pytest.mark.parametrize(
    ("mine", "helper", "place", "reason"),
    [
        ("import gym\nx = undefined\n", "", "mine.py, line 2", "NameError: name 'undefined'"),
        ("import gym\n\ndef f(:\n", "", "(mine.py, line 3)", "SyntaxError"),
        ("import helper\n", "\nx = 1/0\n", "helper.py, line 2", "ZeroDivisionError"),
        ("import helper\n", "\nx = = 1\n", "(helper.py, line 2)", "SyntaxError"),
        ("import sys\nsys.exit(0)\n", "", "mine.py, line 2", "SystemExit: 0"),
        ("import gym\ngym.register()\n", "", "mine.py, line 2", "TypeError"),
        ("import no_such_thing\n", "", "mine.py, line 1", "pip install no_such_thing"),
    ],
)
def test_a_module_of_ones_own_that_fails(mine, helper, place, reason, here):
    (here / "mine.py").write_text(mine)
    (here / "helper.py").write_text(helper)
    message = refusal(make, "mine:Task-v0")
    where = "" if "(mine" in place else str(here)
    assert message.startswith(f"--env mine:Task-v0: {where}") and place in message
    assert "cannot import mine (" in message
    assert reason in message and "start in the folder" not in message


@pytest.mark.parametrize("mine", ["broken()", "import gym\ngym.register('Stopped-v0', broken)"])
def test_what_stops_us_while_it_is_made_passes(mine, here, monkeypatch):
    (here / "mine.py").write_text(mine)
    monkeypatch.setattr("builtins.broken", raising(signals.Stopped(143)), raising=False)
    with pytest.raises(signals.Stopped):
        make("mine:Stopped-v0")


@pytest.mark.parametrize(
    ("env_id", "suggestion"),
    [
        ("Pendulm-v1", "Pendulum-v1"),
        ("gymnasium:pendulum-v1", "Pendulum-v1"),
        ("Ant-v99", "Ant-v5"),  # only Gymnasium has this one
        ("Gim-only-v0", "Gym-only-v0."),
        ("no spaces allowed", "Pendulum-v1"),
        ("", "Pendulum-v1"),
    ],
)
def test_unknown_id(env_id, suggestion):
    registered(gym, class_of(gym), "Gym-only-v0")
    message = refusal(make, env_id)
    assert f"--env {env_id}:" in message and suggestion in message.partition("try ")[2]


MISSING = "a package is not installed"


@each_library
@pytest.mark.parametrize("options", [{}, {"render": True}, {"record": "film.gif"}])
@pytest.mark.parametrize(
    ("error", "why", "step"),
    [
        (ModuleNotFoundError("no jax", name="jax.numpy"), MISSING, "pip install jax"),
        ("box2D is not installed, run `pip install gym[box2d]`", MISSING, ENVS),
        ("No module named 'mujoco_py'", MISSING, f"take its -v5 and {ENVS}"),
        (ImportError("moved to gymnasium-robotics"), MISSING, f"take its -v5 and {ENVS}"),
        (ImportError("no such\nname", name="numpy"), "ImportError: no such name", None),
        (OSError("no such\nfile"), "OSError: no such file", None),
        (SystemExit(2), "SystemExit: 2", None),
        (KeyboardInterrupt(), "KeyboardInterrupt", None),
    ],
)
def test_an_environment_that_cannot_be_made(
    library, options, error, why, step, display, sdl, as_in_the_scripts, capsys
):
    if isinstance(error, str):
        error = library.error.DependencyNotInstalled(error)
    env_id = registered(library, raising(error))
    for asked in (env_id, env_id.replace("Walk", "os:Walk")):  # a module of one's own registers it
        other = "try --env gymnasium:Walk-v0" if asked == "Walk-v0" else "--verbose shows where"
        what = f"{library.__name__} cannot make it ({why}); {step or other}."
        assert refusal(make, asked, **options) == f"--env {asked}: {what}"
    assert capsys.readouterr().out == ""  # it was not the window


# --- actions -------------------------------------------------------------------------------


def box(low, high, dtype=np.float32):
    return gym.spaces.Box(np.asarray(low, dtype), np.asarray(high, dtype), dtype=dtype)


@pytest.mark.parametrize(
    ("space", "unit", "high", "played"),
    [
        (box([-0.4], [0.4]), False, [0.4], [([0.3], [0.3]), ([7], [0.4]), ([-7.0], [-0.4])]),
        (
            gym.spaces.Box(np.zeros(2) - [0, 3], np.float64([1, 5]), dtype=np.float64),
            False,
            [0.5, 4],
            [([0, 0], [0.5, 1]), ([0.5, 4], [1, 5]), ([-0.5, -4], [0, -3]), ([9, -9], [1, -3])],
        ),
        (
            gymnasium.spaces.Box(np.float32([-1, 2]), np.float32([3, 3])),
            True,
            [1, 1],
            [([-1, -1], [-1, 2]), ([0.5, 0], [2, 2.5]), ([7, 1], [3, 3])],
        ),
        (box([-0.4], [0.4]), True, [1], [([0.5], [0.2]), ([-3.0], [-0.4])]),
        (  # arrays are flat for the agent
            box(-np.arange(1, 7).reshape(2, 3), np.arange(1, 7).reshape(2, 3), np.float64),
            False,
            np.arange(1, 7),
            [(np.arange(6) / 10, np.arange(6).reshape(2, 3) / 10)],
        ),
    ],
)
def test_actions_are_moved_and_clipped(space, unit, high, played):
    inner = NewEnv(action_space=space)
    env = wrap(inner, unit_actions=unit)
    env.reset()
    assert type(env.action_space) is type(space) and env.action_space.dtype == np.float32
    np.testing.assert_array_equal(env.action_space.high, np.float32(high))
    np.testing.assert_array_equal(env.action_space.low, -env.action_space.high)
    for ours, theirs in played:
        given = np.array(ours, space.dtype)
        env.step(given)
        env.step(ours)
        for action in inner.actions[-2:]:
            assert action.dtype == space.dtype and action.shape == space.shape
            np.testing.assert_array_equal(action, np.asarray(theirs, space.dtype))
            action[:] = 99  # the environment was given an array of its own
        np.testing.assert_array_equal(given, np.array(ours, space.dtype))


def test_a_window_gets_actions_that_pygame_can_draw():
    """gym 0.26 passes the torque on to pygame, which takes NumPy's float64 and not its float32."""
    inner = NewEnv()
    for inner.render_mode in (None, "human", "rgb_array"):
        env = wrap(inner)
        env.reset()
        env.step(np.array([0.5], np.float32))
    assert [action.dtype for action in inner.actions] == [np.float32, np.float64, np.float64]


def test_an_action_of_the_wrong_length_is_an_error():
    env = wrap(NewEnv(action_space=box([-1, -1], [1, 1])))
    env.reset()
    with pytest.raises(ValueError, match="reshape"):
        env.step([0.0, 0.0, 0.0])


F32, F64 = np.finfo(np.float32).max, np.finfo(np.float64).max  # they stand for infinity


@pytest.mark.parametrize(
    ("space", "reason"),
    [
        (gym.spaces.Discrete(4), "Discrete(4) are not continuous"),
        (gymnasium.spaces.MultiDiscrete([2, 3]), "MultiDiscrete([2 3]) are not continuous"),
        (gym.spaces.MultiBinary(3), "not continuous"),
        (gym.spaces.Dict(a=UNIT), "not continuous"),
        (box([0], [9], np.int64), "not continuous"),
        (types.SimpleNamespace(low=-1.0, high=1.0), "not continuous"),
        (box([-1, -np.inf], [1, 1]), "no bounds"),
        (box([-1, -1], [1, np.inf]), "no bounds"),
        (box([-F32], [F32]), "no bounds"),
        (box([-F64], [F64], np.float64), "no bounds"),
        (box([-1, 2], [1, 2]), "low equals high"),
        (box([], []), "low equals high"),
        (box(np.full((9, 9), -np.inf), np.ones((9, 9))), "no bounds"),  # prints on many lines
    ],
)
def test_actions_that_no_agent_can_give(space, reason):
    message = refusal(wrap, NewEnv(action_space=space))
    assert message.startswith("--env Task-v0: its actions ")
    assert reason in message and "such as Pendulum-v1" in message


@each_library
@pytest.mark.parametrize("name", ["observation", "action"])
@pytest.mark.parametrize("value", ["missing", None, 3])
def test_a_space_that_is_missing(library, name, value):
    walk = class_of(library, **{f"{name}_space": value})
    if value == "missing":
        delattr(walk, f"{name}_space")
    env_id = registered(library, walk)
    message = refusal(make, env_id)
    assert message.startswith(f"--env {env_id}: its {name}s ") and "such as Pendulum-v1" in message
    gc.collect()
    assert walk.instances[0].closed


# --- observations --------------------------------------------------------------------------


def seen(space, observation):
    env = wrap(NewEnv(observation_space=space, observation=observation))
    first, (second, *_) = env.reset(), env.step([0.0])
    np.testing.assert_array_equal(first, second)
    assert first.dtype == np.float32
    assert env.observation_space.shape == first.shape
    assert env.observation_space.dtype == np.float32
    return first.tolist()


@pytest.mark.parametrize("spaces", [gym.spaces, gymnasium.spaces])
def test_observations_become_vectors(spaces):
    real = spaces.Box(-9.0, 9.0, (2, 3), np.float64)
    matrix = np.arange(6.0).reshape(2, 3)
    bits = spaces.MultiBinary(3)
    assert seen(real, matrix) == seen(real, np.asfortranarray(matrix)) == [0, 1, 2, 3, 4, 5]
    assert seen(real, matrix.reshape(6, 1)) == [0, 1, 2, 3, 4, 5]  # not the shape it said
    assert seen(spaces.Box(0, 9, (), np.float32), 3.0) == [3]
    assert seen(spaces.Box(0, 255, (3,), np.uint8), np.uint8([1, 2, 255])) == [1, 2, 255]
    assert seen(spaces.Discrete(3), 1) == [0, 1, 0]
    assert seen(spaces.Discrete(3, start=5), 5) == [1, 0, 0]
    assert seen(bits, np.int8([1, 0, 1])) == [1, 0, 1]
    assert seen(spaces.Tuple((spaces.Discrete(2), bits)), (1, [0, 1, 1])) == [0, 1, 0, 1, 1]
    inside = spaces.Dict(a=spaces.Discrete(2), b=spaces.Box(-9, 9, (1,), np.float32))
    assert seen(inside, {"a": 0, "b": np.float32([7])}) == [1, 0, 7]


def test_bounds_of_the_state_are_kept():
    env = make("Pendulum-v1")
    np.testing.assert_array_equal(env.observation_space.high, [1, 1, 8])
    with np.errstate(all="raise"):
        env = wrap(NewEnv(observation_space=box([-F64], [3], np.float64)))
    assert (env.observation_space.low[0], env.observation_space.high[0]) == (-np.inf, 3)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_state_is_never_the_environments_own_buffer(dtype):
    buffer = np.array([1.0, 2.0], dtype)
    env = wrap(NewEnv(observation=buffer))
    first, (second, *_) = env.reset(), env.step([0.0])
    buffer[:] = 9
    assert first.tolist() == second.tolist() == [1, 2]


@pytest.mark.parametrize(
    "space",
    [
        IMAGE,
        gymnasium.spaces.Box(0, 255, (8, 8), np.uint8),
        gym.spaces.Dict(a=UNIT, b=gym.spaces.Tuple((IMAGE,))),
        gymnasium.spaces.Sequence(gymnasium.spaces.Discrete(2)),
        gymnasium.spaces.Graph(gymnasium.spaces.Box(0, 1, (2,)), None),
        gym.Space(),
        types.SimpleNamespace(),
        box([], []),
    ],
)
def test_observations_that_are_no_vectors(space):
    message = refusal(wrap, NewEnv(observation_space=space))
    assert message.startswith("--env Task-v0: its observations ")
    assert "are no vectors" in message and "such as Pendulum-v1" in message


# --- windows -------------------------------------------------------------------------------

NO_DISPLAY = "No display: playing on without a window.\n"
NO_WINDOW = "Drawing failed (RuntimeError: no GL): playing on without a window.\n"


def played(env):
    """Two episodes' states and rewards, seeded once, rendered at each step."""
    env.seed(3)
    history = []
    for _ in range(2):
        history.append(env.reset().tolist())
        for action in ([0.5], [-1.0], [0.25]):
            env.render()
            state, reward, *_ = env.step(action)
            history += [state.tolist(), reward]
    return history


@each_pendulum
def test_no_display(env_id, no_display, capsys):
    env = make(env_id, render=True)
    assert env.unwrapped.render_mode is None
    assert played(env) == played(make(env_id))
    env.close()
    assert capsys.readouterr() == (NO_DISPLAY, "")


@pytest.mark.parametrize("platform", ["linux", "darwin", "win32"])
@pytest.mark.parametrize("driver", ["dummy", "offscreen"])
def test_a_driver_that_shows_nothing_is_no_display(platform, driver, monkeypatch, capsys):
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setenv("SDL_VIDEODRIVER", driver)
    assert make("Pendulum-v1", render=True).unwrapped.render_mode is None
    assert capsys.readouterr().out == NO_DISPLAY


@pytest.mark.parametrize(
    ("platform", "variable"), [("linux", "DISPLAY"), ("linux", "WAYLAND_DISPLAY"), ("darwin", "")]
)
def test_a_screen(platform, variable, no_display, monkeypatch, capsys):
    screen = types.SimpleNamespace(
        init=lambda: None, get_driver=lambda: "a screen's", quit=lambda: None
    )
    monkeypatch.setitem(sys.modules, "pygame", types.SimpleNamespace(display=screen))
    monkeypatch.setattr(sys, "platform", platform)
    if variable:
        monkeypatch.setenv(variable, ":0")
    env = make(registered(gymnasium, class_of(gymnasium)), render=True)
    assert env.unwrapped.render_mode == "human" and capsys.readouterr().out == ""
    assert "SDL_VIDEODRIVER" not in os.environ  # which only a film sets


@linux
@pytest.mark.parametrize("driver", [{}, {"SDL_VIDEODRIVER": "x11"}])
def test_a_display_that_does_not_answer(driver):
    """SDL then draws off the screen, or raises if it may only use X11."""
    code = (
        "from common.making import make\n"
        "print(make('Pendulum-v1', render=True).unwrapped.render_mode)\n"
    )
    assert python(code, DISPLAY=":9977", **driver).stdout == f"{NO_DISPLAY}None\n"


def window_that_fails_in(library, place, after=0):
    """A class whose window fails in one of its methods, once called `after` times."""
    walk = class_of(library)
    working = getattr(walk, place)

    def failing(self, *args, **options):
        result = working(self, *args, **options)
        if "human" in (self.render_mode, options.get("render_mode")):
            self.calls = getattr(self, "calls", 0) + 1
            if self.calls > after:
                raise RuntimeError("no GL")  # after the state has changed, as in Pendulum
        return result

    setattr(walk, place, failing)
    return walk


@each_library
@pytest.mark.parametrize("place", [None, "__init__", "reset"])
def test_a_window_changes_nothing_whether_or_not_it_opens(library, place, display, capsys):
    walk = window_that_fails_in(library, place) if place else class_of(library)
    env_id = registered(library, walk, max_episode_steps=3)
    expected = played(make(env_id))
    env = make(env_id, render=True)
    assert played(env) == expected
    assert env.step([0.0])[3][LIMIT] is False  # terminal as well: not the limit
    assert env.unwrapped.render_mode == (None if place else "human")
    with_window = [made for made in walk.instances if made.render_mode == "human"]
    assert all(made.closed == (place == "reset") for made in with_window)
    env.close()
    assert all(made.closed for made in with_window) or place == "__init__"
    assert capsys.readouterr().out == (NO_WINDOW if place else "")


@each_library
@pytest.mark.parametrize(("place", "after"), [("step", 0), ("step", 2), ("reset", 1)])
def test_a_window_that_fails_later(library, place, after, display, capsys):
    """The episode ends, and the next ones are played without a window, one seeded by one."""
    walk = window_that_fails_in(library, place, after)
    env_id = registered(library, walk)
    env, twin = make(env_id, render=True), make(env_id)
    last = env.reset(seed=1)
    twin.reset(seed=1)
    if place == "step":
        for _ in range(after):
            last = env.step([0.5])[0]
        assert env.step([0.5]) == (last, 0.0, False, {LIMIT: True})
        for _ in range(after + 1):
            twin.step([0.5])
    for seed in (None, 2, None)[place == "reset" :]:  # the random numbers go on
        assert env.reset(seed=seed) == twin.reset(seed=seed)
        for _ in range(3):
            assert env.step([0.5])[:3] == twin.step([0.5])[:3]
    assert walk.instances[0].closed and env.unwrapped.render_mode is None
    assert capsys.readouterr().out == NO_WINDOW


@pytest.mark.parametrize("place", ["reset", "step"])
def test_an_error_that_is_not_the_windows(place, display, capsys):
    walk = class_of(gym, **{place: raising(ValueError("its own"))})
    env = make(registered(gym, walk), render=True)

    def play():
        for _ in range(2):  # a second time without the window
            env.reset()
            env.step([0.0])

    assert f"its {place}() failed (ValueError: its own)" in refusal(play)
    assert capsys.readouterr().out.count("playing on without a window") == 1


def test_what_cannot_be_made_without_the_window_either(display):
    walk = window_that_fails_in(gym, "step")
    env = make(registered(gym, walk), render=True)
    env.reset()
    walk.__init__ = raising(OSError("gone"))
    message = refusal(env.step, [0.0])
    assert message.startswith("--env Walk-v0: gym cannot make it (OSError: gone)")


@each_library
@pytest.mark.parametrize("modes", [[], ["rgb_array"]])
def test_an_environment_with_no_window(library, modes, display, capsys):
    """Then an error is the environment's."""

    class Blind(class_of(library, metadata={"render_modes": modes})):
        def __init__(self):
            super().__init__()

    env_id = registered(library, Blind)
    env = make(env_id, render=True)
    assert played(env) == played(make(env_id))
    captured = capsys.readouterr()
    assert captured.out.startswith("Drawing failed (") and captured.out.count("\n") == 1
    assert captured.err == ""
    Blind.step = raising(ValueError("its own"))
    assert "its step() failed (ValueError: its own)" in refusal(env.step, [0.0])
    assert capsys.readouterr().out == ""


@pytest.mark.skipif(shutil.which("Xvfb") is None, reason="needs a virtual display, Xvfb")
def test_a_real_window_beside_tensorflow():
    """SDL's OpenGL drivers and TensorFlow in one process end in a segmentation fault."""
    code = (
        "from common import quiet\n"
        "quiet.prepare(verbose=False)\n"
        "from common.making import make\n"
        "import numpy as np, pygame\n"
        "env = make('Pendulum-v1', render=True)\n"
        "env.reset()\n"
        "for _ in range(3): env.step(np.array([1.0], np.float32)); env.render()\n"
        "print(pygame.display.get_driver(), pygame.display.get_surface().get_size())\n"
    )
    with subprocess.Popen(["Xvfb", ":93"], stderr=subprocess.DEVNULL) as screen:
        try:
            time.sleep(2)
            done = python(code, DISPLAY=":93")
        finally:
            screen.terminate()
    assert (done.returncode, done.stdout) == (0, "x11 (500, 500)\n")


# --- films ---------------------------------------------------------------------------------


@pytest.fixture
def sdl(monkeypatch):
    """What make() sets for SDL is gone after the test."""
    monkeypatch.setenv("SDL_VIDEODRIVER", "")
    monkeypatch.delenv("SDL_VIDEODRIVER")


@pytest.fixture
def film(tmp_path, sdl):
    return tmp_path / "film.gif"


def picture(env):
    """A small frame that tells the episode and the step."""
    return np.full((8, 10, 3), 40 * env.generation + 10 * env.steps, np.uint8)


def to_film(library, **attributes):
    """A class whose render() makes such frames, and notes in `drawn` when it did."""

    class Filmed(class_of(library)):
        metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012
        drawn = []  # noqa: RUF012
        generation = 0

        def reset(self, **options):
            self.generation += 1
            return super().reset(**options)

        def render(self):
            self.drawn.append((self.generation, self.steps))
            return picture(self)

    for name, value in attributes.items():
        setattr(Filmed, name, value)
    return Filmed


def frames_of(path):
    """The brightness of each frame of the film, and its frames per second."""
    frames = imageio.imread(path, index=None)
    assert frames.shape[1:] == (8, 10, 3)
    return frames[:, 0, 0, 0].tolist(), 1000 / imageio.immeta(path, index=0)["duration"]


@each_pendulum
def test_a_filmed_pendulum_plays_as_ever(env_id, film, no_display, capsys):
    pytest.importorskip("pygame")
    env, twin = make(env_id, render=True, record=film), make(env_id)
    env.seed(2)
    twin.seed(2)
    for _ in range(2):
        np.testing.assert_array_equal(env.reset(), twin.reset())
        for step in range(200):
            env.render()
            action = np.array([2 * np.sin(step)], np.float32)
            ours, theirs = env.step(action), twin.step(action)
            np.testing.assert_allclose(ours[0], theirs[0], atol=1e-5)  # pygame wants float64
            assert ours[1] == pytest.approx(theirs[1], rel=1e-5) and ours[2:] == theirs[2:]
        assert ours[3][LIMIT]
    env.close()
    assert capsys.readouterr() == (f"Saved {film}\n", "")
    frames = imageio.imread(film, index=None)
    assert frames.shape == (101, 250, 250, 3)
    assert film.stat().st_size < 1e6
    # white around a red rod that swings
    assert (frames[:, :10] == 255).all()
    red = (frames[..., 0] > 150) & (frames[..., 1] < 120)
    assert red.sum(axis=(1, 2)).min() > 500
    assert (red[1:] != red[:-1]).any(axis=(1, 2)).all()


@each_library
def test_each_render_and_the_end_of_the_first_episode(library, film, capsys):
    walk = to_film(library)
    env_id = registered(library, walk)
    env = make(env_id, record=str(film))
    assert played(env) == played(make(env_id))  # two episodes of three steps
    assert walk.drawn == [(1, 0), (1, 1), (1, 2), (1, 3)]
    assert frames_of(film) == ([40, 50, 60, 70], 10)
    film.unlink()
    env.reset()
    env.render()
    env.close()
    env.close()
    assert capsys.readouterr().out == f"Saved {film}\n"
    assert len(walk.drawn) == 4 and not film.exists()  # written once
    assert env.unwrapped.closed


@each_library
@pytest.mark.parametrize("steps", [None, 0, 2])
def test_an_episode_that_the_loop_cuts_short(library, steps, film, capsys):
    """Without any episode there is no film."""
    env = make(registered(library, to_film(library, ends_at=99)), record=film)
    if steps is not None:
        env.reset()
        for _ in range(steps):
            env.render()
            env.step([0.0])
        assert not film.exists()
    env.close()
    assert steps is None or frames_of(film)[0] == [40, 50, 60][: steps + 1]
    assert film.exists() == (steps is not None)
    assert capsys.readouterr().out == (f"Saved {film}\n" if film.exists() else "")


@pytest.mark.parametrize(("variable", "filmed"), [("VIDEO", True), ("AUDIO", False)])
@pytest.mark.parametrize(("given", "expected"), [(None, "dummy"), ("offscreen", "offscreen")])
def test_what_sdl_is_told(variable, filmed, given, expected, film, display, monkeypatch, capsys):
    """A film opens no window, and nothing plays a sound; whoever has said something knows why."""
    monkeypatch.setenv(f"SDL_{variable}DRIVER", given or "")
    if given is None:
        monkeypatch.delenv(f"SDL_{variable}DRIVER")
    options = {"render": True, "record": film} if filmed else {}
    env = make(registered(gym, to_film(gym)), **options)
    assert env.unwrapped.render_mode == ("rgb_array" if filmed else None)
    assert os.environ[f"SDL_{variable}DRIVER"] == expected
    assert capsys.readouterr().out == ""


def test_a_file_that_is_no_film_comes_before_all_else():
    assert refusal(make, "Pendulm-v1", record="film.avi").startswith("--record film.avi: ")


def assert_no_film(env_id, film, reason=""):
    """At the first picture one line says why there is none; the episode goes on without."""
    env = make(env_id, record=film)
    env.reset()
    message = refusal(env.render)
    assert message.startswith(f"--record: {env_id} cannot be drawn ({reason}")
    assert message.endswith("; leave out --record.")
    env.render()
    env.close()  # has nothing to add
    assert not film.exists()


@each_pendulum
def test_a_film_without_pygame(env_id, film, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "pygame", None)
    assert_no_film(env_id, film, "DependencyNotInstalled: pygame")
    assert capsys.readouterr() == ("", "")


@each_library
@pytest.mark.parametrize("modes", [[], ["human"]])
def test_an_environment_without_pictures(library, modes, film, capsys):
    walk = class_of(library, metadata={"render_modes": modes})
    assert_no_film(registered(library, walk), film)
    assert capsys.readouterr().err == ""


def test_an_environment_that_only_plays_unseen(film, capsys):
    class Unseen(class_of(gym)):
        def __init__(self, render_mode=None):
            if render_mode is not None:
                raise RuntimeError("no\nGL")
            super().__init__()

    assert_no_film(registered(gym, Unseen), film)
    assert capsys.readouterr().out == NO_WINDOW


@pytest.mark.parametrize("frame", [None, np.zeros((8, 10, 3)), np.zeros((9, 9, 3), np.uint8)])
def test_drawing_that_fails_under_way_leaves_the_old_film(frame, film, capsys):
    walk = to_film(gym, render=lambda self: picture(self) if self.steps < 1 else frame)
    film.write_text("old")
    env = make(registered(gym, walk), record=film)
    env.reset()
    env.render()
    env.step([0.0])
    message = refusal(env.render)
    assert message.startswith("--record: Walk-v0 cannot be drawn (ValueError: ")
    assert "picture" in message
    env.reset()
    env.close()
    assert film.read_text() == "old" and capsys.readouterr().out == ""


def test_a_film_that_cannot_be_written(film, capsys):
    film.write_text("a file, no folder")
    env = make(registered(gym, to_film(gym)), record=film / "film.gif")
    env.reset()
    assert str(film) in refusal(env.close)
    assert env.unwrapped.closed and capsys.readouterr().out == ""


@linux
@pytest.mark.parametrize("display", [{}, {"DISPLAY": ":9977"}])
def test_a_film_needs_no_display(display, tmp_path):
    pytest.importorskip("pygame")
    film = tmp_path / "film.gif"
    code = (
        "from common.making import make\n"
        f"for env_id in {PENDULUM!r}:\n"
        f"    env = make(env_id, render=True, record={str(film)!r})\n"
        "    env.reset(seed=1)\n"
        "    for _ in range(3): env.render(); env.step([1.0])\n"
        "    env.close()\n"
    )
    done = python(code, **display)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"Saved {film}\n" * 2
    assert len(imageio.imread(film, index=None)) == 2


# --- what reaches the screen ---------------------------------------------------------------


def test_nothing_on_the_screen_and_nothing_imported_early():
    code = (
        "import sys\n"
        "from common import making\n"
        "assert not {'gym', 'gymnasium', 'pygame'} & set(sys.modules)\n"
        "env = making.make('Pendulum-v1')\n"
        "assert 'gym' in sys.modules and 'gymnasium' not in sys.modules\n"
        "env.reset(seed=1)\n"
        "env.step([0.])\n"
        "making.make('gymnasium:Pendulum-v1').reset(seed=1)\n"
        "print('so far', file=sys.stderr)\n"
        "import gym\n"
        "gym.logger.warn('still heard')\n"
    )
    done = python(code)
    assert (done.returncode, done.stdout) == (0, "")
    ours, after = done.stderr.split("so far\n")
    assert ours == "" and "still heard" in after  # another user of gym loses nothing


def test_gyms_warnings_about_an_id_stay_off_the_screen(recwarn):
    registered(gym, class_of(gym), "Aged-v2")
    make(registered(gym, class_of(gym), "Aged-v1"))  # "is out of date"
    assert [str(warning.message) for warning in recwarn] == []
