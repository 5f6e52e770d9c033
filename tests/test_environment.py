"""The chapter's interface over gym and Gymnasium: common/environment.py, common/making.py."""

import contextlib
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


def wrap(env, env_id="Task-v0", **options):
    return Environment(env, env_id, **options)


class OldEnv:
    """The API of gym 0.21: four values from step, env.seed, done at a time limit too."""

    observation_space = gym.spaces.Box(-10.0, 10.0, (2,), np.float32)
    action_space = UNIT

    def __init__(self, script=()):
        """script: (done, info) of each step."""
        self.script = list(script)
        self.generator = np.random.RandomState(0)
        self.actions = []

    def seed(self, seed=None):
        self.generator = np.random.RandomState(seed)
        return [seed]

    def reset(self):
        return self.generator.uniform(size=2)

    def step(self, action):
        self.actions.append(action)
        done, info = self.script.pop(0) if self.script else (False, {})
        return self.generator.uniform(size=2), 1, done, info

    def close(self):
        self.closed = True


class NewEnv:
    """The API of gym 0.26 and Gymnasium: reset(seed=) and five values from step."""

    observation_space = gym.spaces.Box(-10.0, 10.0, (2,), np.float32)
    action_space = UNIT

    def __init__(self, script=(), action_space=None, observation_space=None, observation=None):
        """script: (terminated, truncated) of each step; observation: what is always seen."""
        self.script = list(script)
        self.action_space = action_space or self.action_space
        self.observation_space = observation_space or self.observation_space
        self.observation = np.zeros(2) if observation is None else observation
        self.seeds = []
        self.actions = []
        self.reward = 1

    def reset(self, *, seed=None, options=None):
        self.seeds.append(seed)
        return self.observation, {}

    def step(self, action):
        self.actions.append(action)
        terminated, truncated = self.script.pop(0) if self.script else (False, False)
        return self.observation, self.reward, terminated, truncated, {"from": "the env"}


def registered(library, name, entry_point, **options):
    """Register an environment for one test, without a warning the second time."""
    library.envs.registration.registry.pop(name, None)
    library.register(name, entry_point=entry_point, **options)
    return name if library is gym else f"gymnasium:{name}"


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
            type(self).instances.append(self)

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


@pytest.fixture
def display(monkeypatch):
    """Pretend that there is a screen (the tests' windows are fakes)."""
    monkeypatch.setattr(making, "_there_is_a_screen", lambda: True)


@pytest.fixture
def no_display(monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)


def refusal(call, *args, **options):
    """The one line with which the call refuses."""
    with pytest.raises(UserError) as caught:
        call(*args, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


# --- one interface over three APIs ---------------------------------------------------------


@pytest.mark.parametrize("env_id", PENDULUM)
def test_pendulum_plays_as_the_library_plays_it(env_id):
    library = gymnasium if "gymnasium" in env_id else gym
    theirs = library.make("Pendulum-v1", disable_env_checker=True)
    ours = make(env_id)
    ours.seed(2)
    for seed in (2, None):  # the second episode goes on with the same generator
        expected, _ = theirs.reset(seed=seed)
        np.testing.assert_array_equal(ours.reset(), expected)
        for step in range(1, 201):
            action = np.array([2 * np.sin(step)], np.float32)
            expected, reward, _, truncated, _ = theirs.step(action)
            state, our_reward, done, info = ours.step(action)
            np.testing.assert_array_equal(state, expected)
            assert our_reward == reward
            assert (done, info["TimeLimit.truncated"]) == (False, truncated)
        assert truncated
    assert (ours.env_id, ours.max_episode_steps) == (env_id, 200)
    assert ours.unwrapped is not ours and ours.unwrapped.max_torque == 2.0


@pytest.mark.parametrize("env_id", PENDULUM)
def test_types_that_the_agents_rely_on(env_id):
    env = make(env_id)
    assert env.observation_space.shape == (3,) and env.action_space.shape == (1,)
    assert env.action_space.high.dtype == np.float32
    np.testing.assert_array_equal(env.action_space.high, [2.0])
    state = env.reset()
    assert type(state) is np.ndarray and state.dtype == np.float32 and state.shape == (3,)
    state, reward, done, info = env.step(env.action_space.sample())
    assert state.dtype == np.float32 and state.shape == (3,)
    assert type(reward) is float and type(done) is bool
    assert type(info["TimeLimit.truncated"]) is bool


def test_old_api():
    env = wrap(OldEnv())
    env.seed(5)
    twin = OldEnv()
    twin.seed(5)
    state = env.reset()
    assert state.dtype == np.float32
    np.testing.assert_array_equal(state, twin.reset().astype(np.float32))
    state, reward, done, info = env.step([0.5])
    np.testing.assert_array_equal(state, twin.step(None)[0].astype(np.float32))
    assert (reward, done, info) == (1.0, False, {"TimeLimit.truncated": False})
    assert (env.env_id, env.max_episode_steps) == ("Task-v0", None)
    inner = env.unwrapped
    env.close()
    assert inner.closed


def test_old_api_inside_a_wrapper_that_passes_everything_on():
    class Wrapper:
        def __init__(self, env):
            self.env = env
            self.observation_space, self.action_space = env.observation_space, env.action_space

        def reset(self, **options):
            return self.env.reset(**options)

        def seed(self, seed):
            return self.env.seed(seed)

    env = wrap(Wrapper(OldEnv()))
    assert env.reset(seed=5) == pytest.approx(np.random.RandomState(5).uniform(size=2))


def test_a_new_seed_serves_one_reset():
    inner = NewEnv()
    env = wrap(inner)
    env.seed(np.int64(7))
    env.reset()
    env.reset()
    env.reset(seed=8)
    assert inner.seeds == [7, None, 8]
    assert type(inner.seeds[0]) is int  # gym refuses NumPy's integers


def test_an_environment_without_seed_says_so(capsys):
    class Unseeded(NewEnv):
        def reset(self):
            return np.ones(2), {}

    env = wrap(Unseeded(), "Unseeded-v0")
    np.testing.assert_array_equal(env.reset(seed=1), [1, 1])
    assert capsys.readouterr().out.splitlines() == [
        "Unseeded-v0 takes no seed: its episodes will differ from run to run."
    ]


def test_old_class_registered_with_gym_keeps_its_time_limit():
    class Old(OldEnv, gym.Env):
        pass

    env = make(registered(gym, "OldClass-v0", Old, max_episode_steps=2))
    assert env.reset(seed=5) == pytest.approx(np.random.RandomState(5).uniform(size=2))
    ends = [env.step([0.0])[2:] for _ in range(2)]
    assert ends[0] == (False, {"TimeLimit.truncated": False})
    assert ends[1][0] is False and ends[1][1]["TimeLimit.truncated"] is True


# --- terminal states and time limits -------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "done", "truncated"),
    [
        ((False, {}), False, False),
        ((True, {}), True, False),
        ((np.bool_(True), {"TimeLimit.truncated": False}), True, False),
        ((np.bool_(True), {"TimeLimit.truncated": np.bool_(True)}), False, True),
        # left over from the last episode by an environment that returns one dict for ever
        ((False, {"TimeLimit.truncated": True}), False, False),
    ],
)
def test_how_an_old_episode_ends(script, done, truncated):
    given = dict(script[1])
    env = wrap(OldEnv([script]))
    env.reset()
    _, _, our_done, info = env.step([0.0])
    assert our_done is done and info["TimeLimit.truncated"] is truncated
    assert script[1] == given  # the environment's dict is its own


@pytest.mark.parametrize(
    ("script", "done", "truncated"),
    [
        ((False, False), False, False),
        ((np.bool_(True), np.bool_(False)), True, False),
        ((False, np.bool_(True)), False, True),
        ((True, True), True, False),
    ],
)
def test_how_a_new_episode_ends(script, done, truncated):
    env = wrap(NewEnv([script]))
    env.reset()
    _, _, our_done, info = env.step([0.0])
    assert our_done is done and info["TimeLimit.truncated"] is truncated
    assert info["from"] == "the env"


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        (2, [(False, False), (False, True)]),
        (3, [(False, False), (False, False), (True, False)]),  # both in the third step
        (9, [(False, False), (False, False), (True, False)]),
    ],
)
def test_registered_time_limit(library, limit, expected):
    env = make(registered(library, "Limit-v0", class_of(library), max_episode_steps=limit))
    assert env.max_episode_steps == limit
    env.reset()
    ends = [env.step([0.0])[2:] for _ in expected]
    assert [(done, info["TimeLimit.truncated"]) for done, info in ends] == expected
    assert all(type(done) is bool for done, _ in ends)


@pytest.mark.parametrize("reward", [np.float64(2.5), np.array([2.5]), np.array([[2.5]]), 2.5])
def test_reward_is_a_float(reward):
    inner = NewEnv()
    inner.reward = reward
    env = wrap(inner)
    env.reset()
    assert env.step([0.0])[1] == 2.5 and type(env.step([0.0])[1]) is float


def test_the_environments_own_error_becomes_one_line():
    cause, error = KeyError("cause"), ZeroDivisionError("mine")

    class Broken(NewEnv):
        def step(self, action):
            raise error from cause

    env = wrap(Broken())
    env.reset()
    with pytest.raises(UserError, match=r"its step\(\) failed \(ZeroDivisionError: mine") as caught:
        env.step([0.0])
    assert caught.value.__cause__ is error and error.__cause__ is cause


def test_unit_actions_are_scaled_and_moved():
    inner = NewEnv(action_space=gym.spaces.Box(np.float32([-1, 2]), np.float32([3, 3])))
    env = wrap(inner, unit_actions=True)
    assert env.action_space.high.tolist() == [1.0, 1.0]
    assert env.action_space.low.tolist() == [-1.0, -1.0]
    env.reset()
    for action, played in [([-1, -1], [-1, 2]), ([0.5, 0], [2, 2.5]), ([7, 1], [3, 3])]:
        env.step(np.float32(action))
        np.testing.assert_array_equal(inner.actions[-1], np.float32(played))


@pytest.mark.parametrize("env_id", ["Pendulum-v1", "gymnasium:Pendulum-v1"])
def test_the_generator_can_be_restored(env_id):
    env, other = make(env_id), make(env_id)
    env.seed(3)
    env.reset()
    state = json.loads(json.dumps(env.generator_state()))
    other.seed(4)
    other.restore_generator(state)
    for _ in range(3):
        np.testing.assert_array_equal(env.reset(), other.reset())


# --- what the environment returns is checked when it is returned ---------------------------


class Faulty(NewEnv):
    """Returns `bad` in place of one part of what a call returns: of step `at`, or reset (0)."""

    def __init__(self, place, bad, at=3, **options):
        super().__init__(**options)
        self.place, self.bad, self.at = place, bad, at

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count = 0
        return self._with_fault({"observation": self.observation, "info": {}})

    def step(self, action):
        self.count += 1
        names = ("observation", "reward", "terminated", "truncated", "info")
        return self._with_fault(dict(zip(names, super().step(action), strict=True)))

    def _with_fault(self, parts):
        if self.count == self.at:
            if self.place == "result":
                return self.bad() if callable(self.bad) else self.bad
            parts[self.place] = self.bad
        return tuple(parts.values())


def first_refusal(inner):
    """Play until the environment is refused; returns the line, and the rewards until then."""
    env, rewards = wrap(inner, "mine:Task-v0"), []
    with pytest.raises(UserError) as caught:
        for _ in range(2):
            assert np.isfinite(env.reset()).all()
            for _ in range(5):
                state, reward, _, _ = env.step([0.0])
                assert np.isfinite(state).all() and state.shape == (2,)
                rewards.append(reward)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 700
    return message, rewards


OBSERVATIONS = [
    (np.zeros(3), "an observation of 3 numbers, its observation_space says 2"),
    (np.zeros(3, np.float32), "an observation of 3 numbers, its observation_space says 2"),
    (np.zeros(()), "an observation of 1 numbers, its observation_space says 2"),
    ([1.0, np.nan], "the observation [ 1. nan], not finite"),
    (np.float32([np.inf, -np.inf]), "the observation [ inf -inf], not finite"),
    ([0.0, 1e39], "the observation [ 0. inf], not finite"),  # beyond float32
    (None, "the observation None, no numbers"),
    ([0.0, None], "the observation [0.0, None], no numbers"),
    ("ab", "the observation ab, no numbers"),
    ("12", "the observation 12, no numbers"),
    (["1", "2"], "the observation ['1', '2'], no numbers"),
    ([[1.0], [1.0, 2.0]], "the observation [[1.0], [1.0, 2.0]], no numbers"),
    ({"a": 1}, "the observation {'a': 1}, no numbers"),
]


@pytest.mark.filterwarnings("ignore:overflow")
@pytest.mark.parametrize("at", [0, 1, 4])
@pytest.mark.parametrize(("bad", "what"), OBSERVATIONS)
def test_an_observation_that_cannot_be(bad, what, at):
    message, rewards = first_refusal(Faulty("observation", bad, at))
    call, where = ("step", f", at step {at}") if at else ("reset", "")
    assert message == (
        f"--env mine:Task-v0: its {call}() returned {what}{where}; "
        "correct that or take another --env"
    )
    assert len(rewards) == max(0, at - 1)


@pytest.mark.parametrize("size", [63, 64, 300])
def test_one_bad_number_among_many(size):
    space = gym.spaces.Box(-np.inf, np.inf, (size,), np.float32)
    observation = np.full(size, 3e38, np.float32)  # their sum is beyond float32: no false alarm
    env = wrap(NewEnv(observation_space=space, observation=observation))
    assert (env.reset() == env.step([0.0])[0]).all()
    for bad in (np.nan, np.inf):
        observation[-1] = bad
        assert "not finite" in refusal(env.step, [0.0])


def test_an_observation_of_another_shape_is_flattened():
    env = wrap(NewEnv(observation=np.zeros((2, 1))))
    assert env.reset().shape == env.step([0.0])[0].shape == (2,)


def test_an_observation_that_does_not_fit_its_composed_space():
    space = gym.spaces.Dict(a=gym.spaces.Discrete(2), b=UNIT)
    for bad in (None, {"a": 0}, {"a": 0, "b": np.zeros(2)}, {"a": 0, "b": np.float32([np.nan])}):
        env = wrap(NewEnv(observation_space=space, observation=bad), "Task-v0")
        assert refusal(env.reset).startswith("--env Task-v0: its reset() returned ")


@pytest.mark.parametrize(
    "bad", [np.nan, np.inf, -1e39, np.float32("inf"), 10**400, None, "1.0", [1, 2], np.zeros(2),
            np.zeros(0), 1j, [None], {}],
)  # fmt: skip
def test_a_reward_that_cannot_be(bad):
    message, rewards = first_refusal(Faulty("reward", bad))
    assert message.startswith("--env mine:Task-v0: its step() returned the reward ")
    assert message.endswith(
        ", no finite number in float32, at step 3; correct that or take another --env"
    )
    assert rewards == [1.0, 1.0]


@pytest.mark.parametrize(
    "reward", [[2.5], (2.5,), np.float32(2.5), np.float16([2.5]), np.array(2.5, object), 3.4e38]
)
def test_a_reward_that_is_one_number(reward):
    env = wrap(Faulty("reward", reward, at=1))
    env.reset()
    given = env.step([0.0])[1]
    assert type(given) is float and given in (2.5, 3.4e38)


@pytest.mark.parametrize("result", [None, 1.0, "12345", (), (np.zeros(2), 1.0, False), [0] * 6])
def test_a_result_that_cannot_be(result):
    message, _ = first_refusal(Faulty("result", result))
    assert message.startswith("--env mine:Task-v0: its step() returned ")
    assert "no observation, reward, terminated, truncated (two bools) and info (a dict)" in message


@pytest.mark.parametrize("result", [None, (), (np.zeros(2), {}, {}), (np.zeros(2), "info"), "ab"])
def test_a_first_result_that_cannot_be(result):
    message, _ = first_refusal(Faulty("result", result, at=0))
    assert message.startswith("--env mine:Task-v0: its reset() returned ")


def test_no_info_is_none():
    for at in (0, 1):
        env = wrap(Faulty("info", None, at))
        assert env.reset().tolist() == [0, 0]
        assert env.step([0.0])[3]["TimeLimit.truncated"] is False
    old = wrap(OldEnv([(True, None)]))
    old.reset()
    assert old.step([0.0])[2:] == (True, {"TimeLimit.truncated": False})


@pytest.mark.parametrize("info", ["info", [1], 3])
def test_an_info_that_cannot_be(info):
    assert "info (a dict), at step 3" in first_refusal(Faulty("info", info))[0]


@pytest.mark.parametrize("bad", [None, "False", np.zeros(2), np.nan, 2])
@pytest.mark.parametrize("place", ["terminated", "truncated"])
def test_an_end_that_is_neither(place, bad):
    assert "truncated (two bools)" in first_refusal(Faulty(place, bad))[0]
    for old in (OldEnv([(bad, {})]), OldEnv([(True, {"TimeLimit.truncated": bad})])):
        env = wrap(old)
        env.reset()
        assert "truncated (two bools)" in refusal(env.step, [0.0])


def raising(error):
    def fail():
        raise error

    return fail


@pytest.mark.parametrize("at", [0, 3])
@pytest.mark.parametrize(
    "error", [SystemExit("bye"), SystemExit(0), KeyboardInterrupt(), OSError()]
)
def test_what_the_environment_raises(error, at, monkeypatch):
    monkeypatch.setattr(signal, "getsignal", lambda number: signals._handle)  # as in the scripts
    message, _ = first_refusal(Faulty("result", raising(error), at))
    call, where = ("step", ", at step 3") if at else ("reset", "")
    reason = f"{type(error).__name__}: {error}".removesuffix(": ")
    assert f"its {call}() failed ({reason}" in message
    assert message.endswith(f"){where}; --verbose shows where")


@pytest.mark.parametrize("error", [signals.Stopped(130), KeyboardInterrupt(), UserError("ours")])
@pytest.mark.parametrize("at", [0, 3])
def test_what_stops_us_passes(error, at, monkeypatch):
    """Ctrl-C in a notebook is a KeyboardInterrupt, and a signal strikes in whatever code runs."""
    monkeypatch.setattr(signal, "getsignal", lambda number: signal.default_int_handler)
    inner = Faulty("result", raising(error), at)
    inner.render_mode = "human"
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


@pytest.mark.parametrize("library", LIBRARIES)
def test_reset_without_seed(library, capsys):
    walk = class_of(library)

    def reset(self):
        self.steps, self.place = 0, 0.5
        return np.array([0.5]), {}

    walk.reset = reset
    walk.step = lambda self, action: (np.array([0.5]), 1.0, False, False, {})
    env_id = registered(library, "Seedless-v0", walk, max_episode_steps=2)
    env = make(env_id)
    if library is gymnasium:
        message = refusal(env.reset, 1)
        assert f"--env {env_id}: its reset() failed (TypeError" in message
        assert "write def reset(self, seed=None, options=None): super().reset(seed" in message
    else:  # gym of old had no such argument
        assert env.reset(seed=1) == 0.5 and env.reset(seed=2) == 0.5
        ends = [env.step([0.0])[3]["TimeLimit.truncated"] for _ in range(2)]
        assert ends == [False, True]
        assert capsys.readouterr().out.count("takes no seed") == 1


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("name", ["observation_space", "action_space"])
@pytest.mark.parametrize("value", ["missing", None, 3])
def test_a_space_that_is_missing(library, name, value):
    walk = class_of(library, **{name: value})
    if value == "missing":
        delattr(walk, name)
    message = refusal(make, registered(library, "Spaceless-v0", walk))
    assert message.startswith("--env ") and "such as Pendulum-v1" in message
    gc.collect()
    assert walk.instances[0].closed


@pytest.mark.parametrize("name", ["observation_space", "action_space"])
def test_a_space_without_numbers(name):
    inner = NewEnv(**{name: gym.spaces.Box(-1, 1, (0,), np.float32)})
    assert "such as Pendulum-v1" in refusal(wrap, inner)


@pytest.mark.slow
def test_what_was_learned_before_a_bad_step_is_saved(tmp_path):
    """And the state of the training has nothing of that step: --resume goes on."""
    flags = ["--train", "--env", "failing_environment:NotANumber-v0", "--episodes", 6]
    command_line = command("td3", *flags, "--checkpoint-every", 1, *SHORT["td3"], folder=tmp_path)
    variables = {**variables_of_a_run(), "PYTHONPATH": str(ROOT / "tests")}
    done = [
        subprocess.run(
            [*command_line, *resume], cwd=ROOT, env=variables, capture_output=True, text=True
        )
        for resume in ([], ["--resume"])
    ]
    assert [run.returncode for run in done] == [1, 0]
    assert done[0].stderr == (
        "td3.py: --env failing_environment:NotANumber-v0: its step() returned the reward nan, "
        "no finite number in float32, at step 10; correct that or take another --env\n"
    )
    assert done[0].stdout.count("Saved ") == 2 and done[1].stderr == ""


# --- open and closed -----------------------------------------------------------------------


def single(library, where="__init__", **attributes):
    """A class of which only one can be open at a time, and how many are."""
    walk = class_of(library, open=[], **attributes)
    init, reset, close = walk.__init__, walk.reset, walk.close

    def occupy(self):
        if self not in self.open:
            if self.open:
                raise OSError("Address already in use")
            self.open.append(self)

    def new_init(self, render_mode=None):
        init(self, render_mode)
        if where == "__init__":
            occupy(self)

    def new_reset(self, **options):
        occupy(self)
        return reset(self, **options)

    def new_close(self):
        if self in self.open:
            self.open.remove(self)
        close(self)

    walk.__init__, walk.reset, walk.close = new_init, new_reset, new_close
    return walk


@pytest.mark.parametrize("library", LIBRARIES)
def test_closed_once_and_without_a_word(library, capsys):
    walk = single(library)
    env_id = registered(library, "Single-v0", walk)
    env = make(env_id)
    assert "Address already in use" in refusal(make, env_id)
    env.close()
    env.close()
    make(env_id)  # nobody keeps it: closed at once
    make(env_id).close()
    assert capsys.readouterr().out == ""


def test_an_old_class_is_opened_once():
    class Old(OldEnv, gym.Env):
        made = 0

        def __init__(self):
            super().__init__()
            type(self).made += 1

    make(registered(gym, "OldClass-v0", Old, max_episode_steps=2))
    assert Old.made == 1


def test_a_close_that_fails(capsys):
    inner = NewEnv()
    inner.close = raising(OSError("gone"))
    env = wrap(inner, "Sticky-v0")
    env.close()
    env.close()
    assert capsys.readouterr().out == "--env Sticky-v0: its close() failed (OSError: gone).\n"


@pytest.mark.parametrize("end", ["raise ValueError", "raise SystemExit", "pass"])
def test_closed_when_the_process_ends(end):
    code = (
        "import gym\n"
        "from common.making import make\n"
        "from gym.envs.classic_control import PendulumEnv\n"
        "PendulumEnv.close = lambda self: print('closed')\n"
        f"env = make('Pendulum-v1'); env.reset(); {end}\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "closed\n"


def test_lent_the_random_numbers_go_on():
    env, twin = make("Pendulum-v1"), make("Pendulum-v1")
    for each in (env, twin):
        each.seed(7)
    for _ in range(3):  # before the first reset, too
        with env.lent() as lent:
            lent.reset(seed=3)
            lent.reset()
        assert (env.reset() == twin.reset()).all()


# --- which environment ---------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["", "gymnasium:"])
def test_pendulum_v0_runs_as_v1_and_says_so_once(prefix, capsys):
    present_id.cache_clear()
    assert present_id(f"{prefix}Pendulum-v0") == f"{prefix}Pendulum-v1"
    env = make(f"{prefix}Pendulum-v0")
    assert env.env_id == f"{prefix}Pendulum-v1"
    assert env.unwrapped.spec.id == "Pendulum-v1"
    captured = capsys.readouterr()
    assert captured.out == "Gym replaced Pendulum-v0 with Pendulum-v1: Pendulum-v1 runs.\n"
    assert captured.err == ""


@pytest.mark.parametrize("env_id", ["Pendulum-v1", "mine:Pendulum-v0", "Ant-v0", "", "gymnasium:"])
def test_what_else_is_asked_for_stays(env_id):
    assert present_id(env_id) == env_id


def test_gym_comes_first_and_the_prefix_asks_for_gymnasium():
    assert isinstance(make("Pendulum-v1").unwrapped, gym.Env)
    assert isinstance(make("gymnasium:Pendulum-v1").unwrapped, gymnasium.Env)


def test_an_id_that_only_gymnasium_knows():
    registered(gymnasium, "OnlyThere-v0", class_of(gymnasium))
    env = make("OnlyThere-v0")
    assert isinstance(env.unwrapped, gymnasium.Env) and env.env_id == "OnlyThere-v0"


@pytest.mark.parametrize("failure", [ImportError("no gym"), AttributeError("np.bool8")])
def test_without_gym_gymnasium_serves(monkeypatch, failure):
    really = making._import_quietly

    def without_gym(name):
        if name == "gym":
            raise failure
        return really(name)

    monkeypatch.setattr(making, "_import_quietly", without_gym)
    assert isinstance(make("Pendulum-v0").unwrapped, gymnasium.Env)


def test_without_any_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "gym", None)
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    message = refusal(make, "Pendulum-v1")
    assert "--env Pendulum-v1" in message and "pip install gymnasium" in message


def test_module_ids(tmp_path, monkeypatch):
    (tmp_path / "my_pendulum.py").write_text(
        "import gym\n"
        "gym.register('Mine-v0', entry_point='gym.envs.classic_control:PendulumEnv',"
        " max_episode_steps=7)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    env = make("my_pendulum:Mine-v0")
    assert (env.env_id, env.max_episode_steps) == ("my_pendulum:Mine-v0", 7)
    message = refusal(make, "no_such_module:Mine-v0")
    assert "--env no_such_module:Mine-v0" in message and "No module named" in message
    assert f"it is not in {os.getcwd()}: start in the folder that holds it, or pip" in message
    assert "try my_pendulum:Mine-v0" in refusal(make, "my_pendulum:Min-v0")


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
        ends = [env.step([0.5])[3]["TimeLimit.truncated"] for _ in range(50)]
        assert ends == [False] * 49 + [True]
    assert sys.path[-1] == str(here)


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


@pytest.mark.parametrize("error", [SystemExit(2), OSError("no robot"), KeyboardInterrupt()])
def test_ones_own_that_cannot_be_made(error, here, monkeypatch):
    monkeypatch.setattr(signal, "getsignal", lambda number: signals._handle)
    (here / "mine.py").write_text("import gym\ndef f(**options): raise error\n"
                                  "gym.register('Broken-v0', f)\n")
    monkeypatch.setattr("builtins.error", error, raising=False)
    message = refusal(make, "mine:Broken-v0")
    assert f"gym cannot make it ({type(error).__name__}" in message
    assert message.endswith("--verbose shows where.")


@pytest.mark.parametrize(
    ("env_id", "suggestion"),
    [
        ("Pendulm-v1", "Pendulum-v1"),
        ("gymnasium:pendulum-v1", "Pendulum-v1"),
        ("Ant-v99", "Ant-v5"),  # only Gymnasium has this one
        ("no spaces allowed", "Pendulum-v1"),
        ("", "Pendulum-v1"),
    ],
)
def test_unknown_id(env_id, suggestion):
    message = refusal(make, env_id)
    assert f"--env {env_id}:" in message and suggestion in message.partition("try ")[2]


@pytest.mark.parametrize("library", LIBRARIES)
def test_suggestions_come_from_both_libraries(library):
    registered(library, "Unmistakable-v0", class_of(library))
    assert refusal(make, "Unmistakeable-v0").endswith("try Unmistakable-v0.")
    del library.envs.registration.registry["Unmistakable-v0"]


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize(
    ("error", "step"),
    [
        (ModuleNotFoundError("No module named 'jax.numpy'", name="jax.numpy"), "pip install jax"),
        ("box2D is not installed, run `pip install gym[box2d]`", ENVS),
        ("No module named 'mujoco_py'", f"take its -v5 and {ENVS}"),
        (ImportError("moved to the gymnasium-robotics project"), f"take its -v5 and {ENVS}"),
    ],
)
def test_missing_package(library, error, step):
    if isinstance(error, str):
        error = library.error.DependencyNotInstalled(error)
    env_id = registered(library, "Needy-v0", raising(error))
    assert refusal(make, env_id) == (
        f"--env {env_id}: {library.__name__} cannot make it (a package is not installed); {step}."
    )


@pytest.mark.parametrize(
    ("library", "step"),
    [(gym, "try --env gymnasium:Sick-v0."), (gymnasium, "--verbose shows where.")],
)
@pytest.mark.parametrize("render", [False, True])
@pytest.mark.parametrize(
    "error", [OSError("no such\nfile"), ImportError("no such\nname in numpy", name="numpy")]
)
def test_any_other_failure_at_making(library, step, render, error, display, capsys):
    def entry_point(render_mode=None):
        raise error

    message = refusal(make, registered(library, "Sick-v0", entry_point), render=render)
    assert "Sick-v0" in message and f"({type(error).__name__}: no such " in message
    assert message.endswith(step)
    assert capsys.readouterr().out == ""  # it was not the window


# --- actions -------------------------------------------------------------------------------


def playing(action_space):
    inner = NewEnv(action_space=action_space)
    env = wrap(inner)
    env.reset()
    return inner, env


@pytest.mark.parametrize("spaces", [gym.spaces, gymnasium.spaces])
def test_asymmetric_actions_per_dimension(spaces):
    low, high = np.array([0.0, -3.0]), np.array([1.0, 5.0])
    inner, env = playing(spaces.Box(low, high, dtype=np.float64))
    assert isinstance(env.action_space, spaces.Box)
    assert env.action_space.dtype == np.float32
    np.testing.assert_array_equal(env.action_space.high, np.float32([0.5, 4.0]))
    np.testing.assert_array_equal(env.action_space.low, np.float32([-0.5, -4.0]))
    for ours, theirs in [
        ([0, 0], [0.5, 1]),
        ([0.5, 4], high),
        ([-0.5, -4], low),
        ([9, -9], [1, -3]),
    ]:
        env.step(np.array(ours, np.float32))
        assert inner.actions[-1].dtype == np.float64 and inner.actions[-1].shape == (2,)
        np.testing.assert_array_equal(inner.actions[-1], theirs)


def test_symmetric_actions_pass_and_are_clipped():
    inner, env = playing(gym.spaces.Box(-0.4, 0.4, (1,), np.float32))
    given = np.array([0.3], np.float32)
    env.step(given)
    env.step(np.array([7.0]))
    env.step([-7])
    np.testing.assert_array_equal(inner.actions, np.float32([[0.3], [0.4], [-0.4]]))
    assert all(action.dtype == np.float32 for action in inner.actions)
    inner.actions[0][0] = 99.0
    assert given[0] == np.float32(0.3)  # the environment was given an array of its own
    assert inner.actions[1][0] != 99.0


def test_action_arrays_are_flat_for_the_agent():
    low = -np.arange(1.0, 7.0).reshape(2, 3)
    inner, env = playing(gym.spaces.Box(low, -low, dtype=np.float64))
    assert env.action_space.shape == (6,)
    np.testing.assert_array_equal(env.action_space.high, np.arange(1, 7))
    env.step(np.arange(6) / 10)
    np.testing.assert_array_equal(inner.actions[-1], np.arange(6).reshape(2, 3) / 10)


def test_an_action_of_the_wrong_length_is_an_error():
    _, env = playing(gym.spaces.Box(-1, 1, (2,), np.float32))
    with pytest.raises(ValueError, match="reshape"):
        env.step([0.0, 0.0, 0.0])


def box(low, high, dtype=np.float32):
    return gym.spaces.Box(np.asarray(low, dtype), np.asarray(high, dtype), dtype=dtype)


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
        (box([-np.finfo(np.float32).max], [np.finfo(np.float32).max]), "no bounds"),
        (box([-np.finfo(float).max], [np.finfo(float).max], float), "no bounds"),
        (box([-1, 2], [1, 2]), "low equals high"),
        (box(np.full((9, 9), -np.inf), np.ones((9, 9))), "no bounds"),  # prints on many lines
    ],
)
def test_actions_that_no_agent_can_give(space, reason):
    message = refusal(wrap, NewEnv(action_space=space), "Odd-v0")
    assert message.startswith("--env Odd-v0: its actions ")
    assert reason in message and "such as Pendulum-v1" in message


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
    huge = np.finfo(np.float64).max
    with np.errstate(all="raise"):
        env = wrap(NewEnv(observation_space=box([-huge], [3], np.float64)))
    assert (env.observation_space.low[0], env.observation_space.high[0]) == (-np.inf, 3)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_state_is_never_the_environments_own_buffer(dtype):
    buffer = np.array([1.0, 2.0], dtype)
    env = wrap(NewEnv(observation=buffer))
    first, (second, *_) = env.reset(), env.step([0.0])
    buffer[:] = 9
    assert first.tolist() == second.tolist() == [1, 2]


image = gym.spaces.Box(0, 255, (8, 8, 3), np.uint8)


@pytest.mark.parametrize(
    "space",
    [
        image,
        gymnasium.spaces.Box(0, 255, (8, 8), np.uint8),
        gym.spaces.Dict(a=UNIT, b=gym.spaces.Tuple((image,))),
        gymnasium.spaces.Sequence(gymnasium.spaces.Discrete(2)),
        gymnasium.spaces.Graph(gymnasium.spaces.Box(0, 1, (2,)), None),
        gym.Space(),
        types.SimpleNamespace(),
    ],
)
def test_observations_that_are_no_vectors(space):
    message = refusal(wrap, NewEnv(observation_space=space), "Odd-v0")
    assert message.startswith("--env Odd-v0: its observations ")
    assert "are no vectors" in message and "such as Pendulum-v1" in message


# --- windows -------------------------------------------------------------------------------

NO_DISPLAY = "No display: playing on without a window.\n"
NO_WINDOW = "Drawing failed (RuntimeError: no GL): playing on without a window.\n"


def played(env, seed=3):
    """Two episodes' states and rewards, seeded once, rendered at each step."""
    env.seed(seed)
    history = []
    for _ in range(2):
        history.append(env.reset().tolist())
        for action in ([0.5], [-1.0], [0.25]):
            env.render()
            state, reward, *_ = env.step(action)
            history += [state.tolist(), reward]
    return history


@pytest.mark.parametrize("env_id", PENDULUM)
def test_no_display(env_id, no_display, capsys):
    windowless = played(make(env_id))
    env = make(env_id, render=True)
    assert env.unwrapped.render_mode is None
    assert played(env) == windowless
    env.close()
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == (NO_DISPLAY, "")


@pytest.mark.parametrize("platform", ["linux", "darwin", "win32"])
@pytest.mark.parametrize("driver", ["dummy", "offscreen"])
def test_a_driver_that_shows_nothing_is_no_display(platform, driver, monkeypatch, capsys):
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setenv("SDL_VIDEODRIVER", driver)
    assert make("Pendulum-v1", render=True).unwrapped.render_mode is None
    assert capsys.readouterr().out == NO_DISPLAY


@pytest.mark.parametrize(
    ("platform", "display"), [("linux", "DISPLAY"), ("linux", "WAYLAND_DISPLAY"), ("darwin", "")]
)
def test_a_screen(platform, display, no_display, monkeypatch, capsys):
    env_id = registered(gymnasium, "Window-v0", class_of(gymnasium))
    screen = types.SimpleNamespace(
        init=lambda: None, get_driver=lambda: "a screen's", quit=lambda: None
    )
    monkeypatch.setitem(sys.modules, "pygame", types.SimpleNamespace(display=screen))
    monkeypatch.setattr(sys, "platform", platform)
    if display:
        monkeypatch.setenv(display, ":0")
    assert make(env_id, render=True).unwrapped.render_mode == "human"
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_window_that_works_stays(library, display, capsys):
    walk = class_of(library)
    env_id = registered(library, "Window-v0", walk)
    env = make(env_id, render=True)
    assert played(env) == played(make(env_id))
    assert env.unwrapped.render_mode == "human"
    env.close()
    assert walk.instances[0].closed and capsys.readouterr().out == ""


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


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("place", ["__init__", "reset"])
def test_a_window_that_cannot_be_opened_changes_nothing(library, place, display, capsys):
    walk = window_that_fails_in(library, place)
    env_id = registered(library, "Failing-v0", walk, max_episode_steps=3)
    expected = played(make(env_id))
    env = make(env_id, render=True)
    assert played(env) == expected
    assert env.unwrapped.render_mode is None
    with_window = [made for made in walk.instances if made.render_mode == "human"]
    assert all(made.closed for made in with_window) or place == "__init__"
    assert capsys.readouterr().out == NO_WINDOW
    assert env.step([0.0])[3]["TimeLimit.truncated"] is False  # terminal as well: not the limit


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize(("place", "after"), [("step", 0), ("step", 2), ("reset", 1)])
def test_a_window_that_fails_later(library, place, after, display, capsys):
    """The episode ends, and the next ones are played without a window, one seeded by one."""
    walk = window_that_fails_in(library, place, after)
    env_id = registered(library, "Failing-v0", walk)
    env, twin = make(env_id, render=True), make(env_id)
    last = env.reset(seed=1)
    if place == "step":
        for _ in range(after):
            last = env.step([0.5])[0]
        state, reward, done, info = env.step([0.5])
        assert (state, reward, done, info) == (last, 0.0, False, {"TimeLimit.truncated": True})
    for seed in (2, None):
        assert env.reset(seed=seed) == twin.reset(seed=seed)
        for _ in range(3):
            assert env.step([0.5])[:3] == twin.step([0.5])[:3]
    assert walk.instances[0].closed and env.unwrapped.render_mode is None
    assert capsys.readouterr().out == NO_WINDOW


def test_the_random_numbers_go_on_without_the_window(display):
    env_id = registered(gym, "Failing-v0", window_that_fails_in(gym, "step"))
    env, twin = make(env_id, render=True), make(env_id)
    assert env.reset(seed=1) == twin.reset(seed=1)
    env.step([0.5])  # draws, then fails
    twin.step([0.5])
    assert env.reset() == twin.reset()


@pytest.mark.parametrize("place", ["reset", "step"])
def test_an_error_that_is_not_the_windows(place, display, capsys):
    walk = class_of(gym)
    setattr(walk, place, lambda self, *args, **options: raising(ValueError("its own"))())
    env = make(registered(gym, "Broken-v0", walk), render=True)
    walk.ends_at = 99
    with pytest.raises(UserError, match=rf"its {place}\(\) failed .*its own"):
        for _ in range(2):  # a second time without the window
            env.reset()
            env.step([0.0])
    assert capsys.readouterr().out.count("playing on without a window") == 1


def test_what_cannot_be_made_without_the_window_either(display):
    walk = window_that_fails_in(gym, "step")
    env_id = registered(gym, "Failing-v0", walk)
    env = make(env_id, render=True)
    env.reset()
    walk.__init__ = lambda self, render_mode=None: raising(OSError("gone"))()
    message = refusal(env.step, [0.0])
    assert message.startswith("--env Failing-v0: gym cannot make it (OSError: gone)")


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("modes", [[], ["rgb_array"]])
def test_an_environment_with_no_window(library, modes, display, capsys):
    """Then an error is the environment's."""

    class Blind(class_of(library, metadata={"render_modes": modes})):
        def __init__(self):
            super().__init__()

    env_id = registered(library, "Blind-v0", Blind)
    env = make(env_id, render=True)
    assert played(env) == played(make(env_id))
    captured = capsys.readouterr()
    assert captured.out.startswith("Drawing failed (") and captured.out.count("\n") == 1
    assert captured.err == ""
    Blind.step = lambda self, action: raising(ValueError("its own"))()
    assert "its step() failed (ValueError: its own)" in refusal(env.step, [0.0])
    assert capsys.readouterr().out == ""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs X11's DISPLAY")
@pytest.mark.parametrize("driver", [None, "x11"])
def test_a_display_that_does_not_answer(driver):
    """SDL then draws off the screen, or raises if it may only use X11."""
    code = (
        "from common.making import make\n"
        "print(make('Pendulum-v1', render=True).unwrapped.render_mode)\n"
    )
    surroundings = {**os.environ, "DISPLAY": ":9977", "PYTHONWARNINGS": ""}
    surroundings["PYGAME_HIDE_SUPPORT_PROMPT"] = "hide"
    surroundings.pop("SDL_VIDEODRIVER", None)
    surroundings.pop("WAYLAND_DISPLAY", None)
    if driver:
        surroundings["SDL_VIDEODRIVER"] = driver
    out = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=surroundings,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert out == f"{NO_DISPLAY}None\n"


# --- films ---------------------------------------------------------------------------------


@pytest.fixture
def own_variables(monkeypatch):
    """What make() sets for SDL is gone after the test."""
    monkeypatch.setenv("SDL_VIDEODRIVER", "")
    monkeypatch.delenv("SDL_VIDEODRIVER")


def picture(env):
    """A small frame that tells the episode and the step."""
    return np.full((8, 10, 3), 40 * env.generation + 10 * env.steps, np.uint8)


def to_film(library, **attributes):
    """A class whose render() makes such frames, and notes in `drawn` when it did."""
    walk = class_of(library, metadata={"render_modes": ["rgb_array"], "render_fps": 10}, drawn=[])
    walk.generation = 0
    restart = walk.reset

    def reset(self, **options):
        self.generation += 1
        return restart(self, **options)

    def render(self):
        self.drawn.append((self.generation, self.steps))
        return picture(self)

    walk.reset, walk.render = reset, render
    for name, value in attributes.items():
        setattr(walk, name, value)
    return walk


def frames_of(path):
    """The brightness of each frame of the film, and its frames per second."""
    frames = imageio.imread(path, index=None)
    assert frames.shape[1:] == (8, 10, 3)
    return frames[:, 0, 0, 0].tolist(), 1000 / imageio.immeta(path, index=0)["duration"]


@pytest.mark.parametrize("env_id", PENDULUM)
def test_a_filmed_pendulum_plays_as_ever(env_id, tmp_path, no_display, own_variables, capsys):
    pytest.importorskip("pygame")
    path = tmp_path / "film.gif"
    env, twin = make(env_id, render=True, record=path), make(env_id)
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
        assert ours[3]["TimeLimit.truncated"]
    env.close()
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == (f"Saved {path}\n", "")
    frames = imageio.imread(path, index=None)
    assert frames.shape == (101, 250, 250, 3)
    assert path.stat().st_size < 1e6
    # white around a red rod that swings
    assert (frames[:, :10] == 255).all()
    red = (frames[..., 0] > 150) & (frames[..., 1] < 120)
    assert red.sum(axis=(1, 2)).min() > 500
    assert (red[1:] != red[:-1]).any(axis=(1, 2)).all()


@pytest.mark.parametrize("library", LIBRARIES)
def test_each_render_and_the_end_of_the_first_episode(library, tmp_path, own_variables, capsys):
    walk, path = to_film(library), tmp_path / "film.gif"
    env = make(registered(library, "Film-v0", walk), record=str(path))
    played(env)  # two episodes of three steps
    assert walk.drawn == [(1, 0), (1, 1), (1, 2), (1, 3)]
    assert frames_of(path) == ([40, 50, 60, 70], 10)
    path.unlink()
    env.reset()
    env.render()
    env.close()
    env.close()
    assert capsys.readouterr().out == f"Saved {path}\n"
    assert len(walk.drawn) == 4 and not path.exists()  # written once
    assert env.unwrapped.closed


@pytest.mark.parametrize("library", LIBRARIES)
def test_an_episode_that_the_loop_cuts_short(library, tmp_path, own_variables, capsys):
    walk, path = to_film(library, ends_at=99), tmp_path / "film.gif"
    env = make(registered(library, "Film-v0", walk), record=path)
    env.reset()
    for _ in range(2):
        env.render()
        env.step([0.0])
    assert not path.exists()
    env.close()
    assert frames_of(path)[0] == [40, 50, 60]
    assert capsys.readouterr().out == f"Saved {path}\n"


def test_a_filmed_environment_plays_as_ever(tmp_path, own_variables):
    env_id = registered(gym, "Film-v0", to_film(gym))
    assert played(make(env_id, record=tmp_path / "film.gif")) == played(make(env_id))


def test_no_episode_no_film(tmp_path, own_variables, capsys):
    env = make(registered(gym, "Film-v0", to_film(gym)), record=tmp_path / "film.gif")
    env.close()
    assert os.listdir(tmp_path) == [] and capsys.readouterr().out == ""


def test_a_film_opens_no_window(tmp_path, display, own_variables, monkeypatch, capsys):
    env_id = registered(gym, "Film-v0", to_film(gym))
    options = {"render": True, "record": tmp_path / "film.gif"}
    assert make(env_id, **options).unwrapped.render_mode == "rgb_array"
    assert os.environ["SDL_VIDEODRIVER"] == "dummy"
    monkeypatch.setenv("SDL_VIDEODRIVER", "offscreen")
    make(env_id, **options)
    assert os.environ["SDL_VIDEODRIVER"] == "offscreen"  # whoever set it knows why
    assert capsys.readouterr().out == ""


def test_there_is_no_sound(monkeypatch):
    """Without a sound card, ALSA would complain on the screen."""
    for given, expected in [(None, "dummy"), ("pulse", "pulse")]:
        monkeypatch.setenv("SDL_AUDIODRIVER", given or "")
        if given is None:
            monkeypatch.delenv("SDL_AUDIODRIVER")
        make("Pendulum-v1")
        assert os.environ["SDL_AUDIODRIVER"] == expected


def test_only_a_film_sets_the_driver(display):
    make(registered(gym, "Film-v0", to_film(gym)), render=True)
    assert "SDL_VIDEODRIVER" not in os.environ


def test_a_file_that_is_no_film_comes_before_all_else():
    assert refusal(make, "Pendulm-v1", record="film.avi").startswith("--record film.avi: ")


@pytest.mark.parametrize("env_id", PENDULUM)
def test_a_film_without_pygame(env_id, tmp_path, own_variables, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "pygame", None)
    env = make(env_id, record=tmp_path / "film.gif")
    env.reset()
    message = refusal(env.render)
    assert message.startswith(f"--record: {env_id} cannot be drawn (DependencyNotInstalled: pygame")
    assert message.endswith("; leave out --record.")
    env.render()
    env.close()  # has nothing to add
    assert os.listdir(tmp_path) == [] and capsys.readouterr().out == ""


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("modes", [[], ["human"]])
def test_an_environment_without_pictures(library, modes, tmp_path, own_variables, capsys):
    walk = class_of(library, metadata={"render_modes": modes})
    env_id = registered(library, "Blind-v0", walk)
    with contextlib.closing(make(env_id, False, tmp_path / "film.gif")) as env:
        env.reset()
        message = refusal(env.render)
    assert message.startswith(f"--record: {env_id} cannot be drawn (")
    assert message.endswith("; leave out --record.")
    assert capsys.readouterr().err == "" and os.listdir(tmp_path) == []


def test_an_environment_that_only_plays_unseen(tmp_path, own_variables, capsys):
    class Unseen(class_of(gym)):
        def __init__(self, render_mode=None):
            if render_mode is not None:
                raise RuntimeError("no\nGL")
            super().__init__()

    env = make(registered(gym, "Unseen-v0", Unseen), record=tmp_path / "film.gif")
    assert capsys.readouterr().out == NO_WINDOW
    env.reset()
    assert refusal(env.render).startswith("--record: Unseen-v0 cannot be drawn (")


def test_the_film_is_not_why_it_cannot_be_made(tmp_path, own_variables):
    def entry_point(render_mode=None):
        raise OSError("no such file")

    message = refusal(make, registered(gym, "Sick-v0", entry_point), False, tmp_path / "film.gif")
    assert message.startswith("--env Sick-v0: gym cannot make it (OSError: no such file)")


@pytest.mark.parametrize("frame", [None, np.zeros((8, 10, 3)), np.zeros((9, 9, 3), np.uint8)])
def test_drawing_that_fails_under_way_leaves_the_old_film(frame, tmp_path, own_variables, capsys):
    walk = to_film(gym)
    walk.render = lambda self: picture(self) if self.steps < 1 else frame
    (tmp_path / "film.gif").write_text("old")
    env = make(registered(gym, "Film-v0", walk), record=tmp_path / "film.gif")
    env.reset()
    env.render()
    env.step([0.0])
    message = refusal(env.render)
    assert message.startswith("--record: Film-v0 cannot be drawn (ValueError: ")
    assert "picture" in message
    env.reset()
    env.close()
    assert (tmp_path / "film.gif").read_text() == "old" and capsys.readouterr().out == ""


def test_a_film_that_cannot_be_written(tmp_path, own_variables, capsys):
    (tmp_path / "file").write_text("")
    walk = to_film(gym)
    env = make(registered(gym, "Film-v0", walk), record=tmp_path / "file" / "film.gif")
    env.reset()
    assert str(tmp_path / "file") in refusal(env.close)
    assert env.unwrapped.closed and capsys.readouterr().out == ""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs X11's DISPLAY")
@pytest.mark.parametrize("surroundings", [{}, {"DISPLAY": ":9977"}])
def test_a_film_needs_no_display(surroundings, tmp_path):
    pytest.importorskip("pygame")
    code = (
        "from common.making import make\n"
        f"for env_id in {PENDULUM!r}:\n"
        f"    env = make(env_id, render=True, record={str(tmp_path)!r} + '/film.gif')\n"
        "    env.reset(seed=1)\n"
        "    for _ in range(3): env.render(); env.step([1.0])\n"
        "    env.close()\n"
    )
    surroundings = surroundings | {"PYGAME_HIDE_SUPPORT_PROMPT": "hide"}
    ours = ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER", "PYTHONWARNINGS")
    variables = {key: value for key, value in os.environ.items() if key not in ours}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=variables | surroundings,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"Saved {tmp_path}/film.gif\n" * 2
    assert len(imageio.imread(tmp_path / "film.gif", index=None)) == 2


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
    surroundings = {key: value for key, value in os.environ.items() if key != "PYTHONWARNINGS"}
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=surroundings,
        check=True,
        capture_output=True,
        text=True,
    )
    assert result.stdout == ""
    ours, after = result.stderr.split("so far\n")
    assert ours == "" and "still heard" in after  # another user of gym loses nothing


def test_gyms_warnings_about_an_id_stay_off_the_screen(recwarn):
    registered(gym, "Aged-v1", class_of(gym))
    gym.register("Aged-v2", entry_point=class_of(gym))
    make("Aged-v1")  # "is out of date"
    assert [str(warning.message) for warning in recwarn] == []


def test_a_window_gets_actions_that_pygame_can_draw():
    """gym 0.26 passes the torque on to pygame, which takes NumPy's float64 and not its float32."""
    given = []
    env = NewEnv()
    env.step = lambda action: given.append(action) or NewEnv.step(env, action)
    for mode in (None, "human", "rgb_array"):
        env.render_mode = mode
        wrapped = wrap(env)
        wrapped.reset()
        wrapped.step(np.array([0.5], np.float32))
    assert [action.dtype for action in given] == [np.float32, np.float64, np.float64]


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
            variables = {k: v for k, v in os.environ.items() if k != "SDL_VIDEODRIVER"}
            done = subprocess.run(
                [sys.executable, "-c", code], cwd=ROOT, env=variables | {"DISPLAY": ":93"},
                capture_output=True, text=True, timeout=120,
            )
        finally:
            screen.terminate()
    assert (done.returncode, done.stdout) == (0, "x11 (500, 500)\n")


def test_an_action_that_is_no_number_is_not_the_environments_fault():
    env = make("Pendulum-v1")
    env.reset(seed=1)
    env.step([0.5])
    with pytest.raises(UserError, match=r"was given the action \[nan\], at step 2; the policy is"):
        env.step([float("nan")])
