"""common/tasks: from the name that --env gives to the chapter's reset, step, seed and render."""

import gc
import json
import sys
import types
from decimal import Decimal

import gym
import gymnasium
import numpy as np
import pytest
import tasks
from commands import python, refusal, run
from tasks import LIBRARIES

from common.errors import UserError
from common.files.names import ROOT, present_id
from common.process import Stopped
from common.tasks.environment import Environment
from common.tasks.making import make
from common.training.checkpoint import _as_json, _from_json

here, registries = tasks.here, tasks.registries
PENDULUM = ["Pendulum-v1", "gymnasium:Pendulum-v1"]
UNIT = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)
IMAGE = gym.spaces.Box(0, 255, (8, 8, 3), np.uint8)


def box(low, high, dtype=np.float32):
    return gym.spaces.Box(np.asarray(low, dtype), np.asarray(high, dtype), dtype=dtype)


each_library = pytest.mark.parametrize("library", LIBRARIES)
each_pendulum = pytest.mark.parametrize("env_id", PENDULUM)


class Task(gym.Env):
    """Any attribute can be given. `fault` is (place, bad, at): `bad` stands in place of one part of
    what a call returns, or all of it, at that step, or at reset (0).
    """

    observation_space = gym.spaces.Box(-10.0, 10.0, (2,), np.float32)
    action_space = UNIT
    observation, reward, terminated, truncated = np.zeros(2), 1, False, False
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
        names = "observation", "reward", "terminated", "truncated"
        return self._with_fault({name: getattr(self, name) for name in names} | {"info": {}})

    def _with_fault(self, parts):
        place, bad, at = self.fault
        if self.count == at and place == "result":
            return bad() if callable(bad) else bad
        return tuple((parts | ({place: bad} if self.count == at else {})).values())


def wrapped(unit_actions=False, **attributes):
    return Environment(Task(**attributes), "Task-v0", another=None, unit_actions=unit_actions)


def class_of(library, **attributes):
    """A small environment class of either library, with these attributes."""

    class Walk(library.Env):
        metadata = {"render_modes": ["human", "rgb_array"], "render_fps": 10}  # noqa: RUF012
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
            return np.array([self.place]), -1.0, np.bool_(self.steps >= self.ends_at), False, {}

        def close(self):
            self.closed = True

    for name, value in attributes.items():
        setattr(Walk, name, value)
    return Walk


def registered(library, entry_point, name="Walk-v0", **options):
    """Register an environment; returns the id with which make() takes it."""
    library.register(name, entry_point=entry_point, **options)
    return name if library is gym else f"gymnasium:{name}"


def raising(error):
    """A function of any arguments that raises."""

    def fail(*args, **options):
        raise error

    return fail


@each_pendulum
def test_pendulum_plays_as_the_library_plays_it(env_id):
    library = gymnasium if "gymnasium" in env_id else gym
    theirs, ours = library.make("Pendulum-v1", disable_env_checker=True), make(env_id)
    assert ours.observation_space.shape == (3,) and ours.action_space.shape == (1,)
    assert ours.action_space.high == [2.0] and ours.action_space.high.dtype == np.float32
    np.testing.assert_array_equal(ours.observation_space.high, [1, 1, 8])
    ours.seed(2)
    returns = [0.0, 0.0]
    for episode, seed in enumerate((2, None)):  # the second goes on with the same generator
        expected, _ = theirs.reset(seed=seed)
        state = ours.reset()
        np.testing.assert_array_equal(state, expected)
        assert type(state) is np.ndarray and state.dtype == np.float32 and state.shape == (3,)
        for step in range(1, 201):
            action = np.array([2 * np.sin(step)], np.float32)
            expected, expected_reward, _, truncated, _ = theirs.step(action)
            state, reward, done, _ = ours.step(action)
            np.testing.assert_array_equal(state, expected)
            assert (reward, done, ours.terminal) == (expected_reward, truncated, False)
            assert state.dtype == np.float32 and type(reward) is float and type(done) is bool
            returns[episode] += reward
        assert done
    assert (ours.returns, ours.lengths) == (returns, [200, 200])
    assert (ours.env_id, ours.max_episode_steps) == (env_id, 200)
    assert ours.unwrapped.max_torque == 2.0


def test_a_new_seed_serves_one_reset():
    env = wrapped()
    env.seed(np.int64(7))
    env.reset()
    env.reset()
    env.reset(seed=8)
    assert env.unwrapped.seeds == [7, None, 8]
    assert type(env.unwrapped.seeds[0]) is int  # gym refuses NumPy's integers


OF_ONES_OWN = {
    "RandomState": lambda: np.random.RandomState(3),
    **{kind: lambda kind=kind: np.random.Generator(getattr(np.random, kind)(3))
       for kind in ("PCG64", "MT19937", "Philox", "SFC64")},
}


@pytest.mark.parametrize("kind", OF_ONES_OWN)
def test_generators_of_ones_own_go_on(kind, capsys):
    def drawn(env, size):
        task = env.unwrapped
        return [generator.normal(size=size).tolist()
                for generator in (task.rng, task.np_random, *task.rngs)]

    make_one = OF_ONES_OWN[kind]
    env, other = (wrapped(rng=make_one(), np_random=make_one(), rngs=[make_one(), make_one()])
                  for _ in range(2))
    drawn(env, 5)
    states = _from_json(json.loads(json.dumps(_as_json(env.generator_states()))))
    other.restore_generators(states)
    assert drawn(env, 3) == drawn(other, 3)
    assert capsys.readouterr().out == ""
    for rng in None, np.random.Generator(np.random.PCG64DXSM(3)):  # made, or replaced, by a reset()
        other.unwrapped.rng = rng
        other.restore_generators(states)
        said = capsys.readouterr().out
        assert "Task.rng is not there before the first reset()" in said and said.count("\n") == 1


def test_generators_of_two_wrappers_of_a_class():
    class Noisy(gymnasium.Wrapper):
        def __init__(self, env, seed):
            super().__init__(env)
            self.rng = np.random.default_rng(seed)

    first, second = (Environment(Noisy(Noisy(gymnasium.make("Pendulum-v1"), n), n + 1), "", None)
                     for n in (1, 3))
    second.restore_generators(first.generator_states())
    for env in first, second:
        env.drawn = [layer.rng.random() for layer in (env._env, env._env.env)]
    assert first.drawn == second.drawn and len({*first.drawn}) == 2


def test_what_an_environment_calls_its_env_is_its_own_affair():
    for thing in (None, object(), wrapped()):
        env = wrapped(env=thing)
        env.restore_generators(env.generator_states())
        assert env.statistics() == []


@pytest.mark.parametrize("truncated", [False, np.bool_(True), 1])
@pytest.mark.parametrize("terminated", [False, np.bool_(True), 1])
def test_how_an_episode_ends(terminated, truncated):
    env = wrapped(terminated=terminated, truncated=truncated)
    env.reset()
    assert env.step([0.0])[2] is bool(terminated or truncated)
    assert env.terminal is bool(terminated)


@each_library
@pytest.mark.parametrize(
    ("limit", "ends"),
    [
        (2, [(False, False), (True, False)]),
        (3, [(False, False), (False, False), (True, True)]),  # both in the third step
        (9, [(False, False), (False, False), (True, True)]),
    ],
)
def test_a_time_limit_is_no_real_end(library, limit, ends):
    env = make(registered(library, class_of(library), max_episode_steps=limit))
    assert env.max_episode_steps == limit
    env.reset()
    assert [(env.step([0.0])[2], env.terminal) for _ in ends] == ends


def first_refusal(place, bad, at):
    """Play until the environment is refused; all is well until then. Returns the line."""
    env, rewards = wrapped(fault=(place, bad, at)), []

    def play():
        assert np.isfinite(env.reset()).all()
        for _ in range(5):
            state, reward, _, _ = env.step([0.0])
            assert np.isfinite(state).all() and state.shape == (2,)
            rewards.append(reward)

    message = refusal(play)
    assert rewards == [1.0] * (at - 1)
    return message


@pytest.mark.parametrize("at", [0, 3])
@pytest.mark.parametrize(
    ("bad", "printed", "why"),
    [
        (np.zeros(3), "[0. 0. 0.]", "cannot reshape array of size 3"),
        ([1.0, np.nan], "[1.0, nan]", "ValueError: not finite"),
        (np.float32([np.inf, -np.inf]), "[ inf -inf]", "ValueError: not finite"),
        ([0.0, 1e39], "[0.0, 1e+39]", "ValueError: not finite"),  # beyond float32
        (None, "None", "TypeError: float() argument must be"),
        ([0.0, None], "[0.0, None]", "TypeError: float() argument must be"),
        (["1", "2"], "['1', '2']", "TypeError: no numbers"),
        ([[1.0], [1.0, 2.0]], "[[1.0], [1.0, 2.0]]", "inhomogeneous"),
    ],
)
def test_an_observation_that_cannot_be(bad, printed, why, at):
    message = first_refusal("observation", bad, at)
    call, where = ("step", f", at step {at}") if at else ("reset", "")
    assert message.startswith(f"--env Task-v0: its {call}() returned the observation ")
    assert f"{printed}, not 2 finite numbers (" in message and why in message
    assert message.endswith(f"){where}; correct that or take another --env")


NO_NUMBER = "no finite number in float32, at step 3; correct that or take another --env"
RESULT = "not observation, reward, terminated, truncated (two bools) and info (a dict), at step 3"
PAIR = "not observation and info (a dict)"


@pytest.mark.parametrize(
    ("place", "bad", "at", "what"),
    [
        *(("reward", bad, 3, NO_NUMBER)
          for bad in (np.nan, np.inf, -1e39, 10**400, None, "1.0", np.zeros(2), 1j)),
        *(("result", bad, 3, RESULT) for bad in (None, "12345", (np.zeros(2), 1.0, False))),
        *((place, bad, 3, RESULT) for place in ("terminated", "truncated")
          for bad in (None, "False", np.zeros(2), np.nan, 2)),
        *(("result", bad, 0, PAIR) for bad in (None, np.zeros(2), (np.zeros(2), {}, {}))),
    ],
)
def test_a_result_that_cannot_be(place, bad, at, what):
    message = first_refusal(place, bad, at)
    call = "step" if at else "reset"
    reward = "the reward " if place == "reward" else ""
    assert message.startswith(f"--env Task-v0: its {call}() returned {reward}") and what in message


class Number:
    def __float__(self):
        return 2.5


@pytest.mark.parametrize("reward", [2.5, [2.5], np.float32(2.5), np.array([[2.5]]), 3.4e38,
                                    Decimal("2.5"), Number()])
def test_a_reward_that_is_one_number(reward):
    env = wrapped(reward=reward)
    env.reset()
    given = env.step([0.0])[1]
    assert type(given) is float and given in (2.5, 3.4e38)


def test_an_observation_of_objects():
    env = wrapped(observation=np.array([Decimal("0.5"), 2], dtype=object))
    assert env.reset().tolist() == [0.5, 2.0]


def test_one_bad_number_among_many():
    space = gym.spaces.Box(-np.inf, np.inf, (300,), np.float32)
    observation = np.full(300, 3e38, np.float32)  # their sum is beyond float32: no false alarm
    env = wrapped(observation_space=space, observation=observation)
    assert (env.reset() == env.step([0.0])[0]).all()
    observation[-1] = np.nan
    assert "not finite" in refusal(env.step, [0.0])


@pytest.mark.parametrize("at", [0, 3])
@pytest.mark.parametrize("error", [SystemExit("bye"), SystemExit(0), OSError(), KeyError("x\ny")])
def test_what_the_environment_raises(error, at):
    env = wrapped(fault=("result", raising(error), at))
    with pytest.raises(UserError) as caught:
        env.reset()
        for _ in range(3):
            env.step([0.0])
    call, where = ("step", ", at step 3") if at else ("reset", "")
    message = str(caught.value)
    assert message.startswith(f"--env Task-v0: its {call}() failed ({type(error).__name__}")
    assert message.endswith(f"){where}; --verbose shows where") and "\n" not in message
    assert caught.value.__cause__ is error  # which --verbose shows


@pytest.mark.parametrize("error", [Stopped(130), KeyboardInterrupt(), UserError("ours")])
@pytest.mark.parametrize("at", [0, 1])
def test_what_stops_us_is_not_the_environments_fault(error, at):
    """A signal strikes in whatever code runs."""
    env = wrapped(fault=("result", raising(error), at))
    with pytest.raises(type(error)) as caught:
        env.reset()
        env.step([0.0])
    assert caught.value is error


def test_an_action_that_is_no_number_is_not_the_environments_fault():
    env = make("Pendulum-v1")
    env.reset(seed=1)
    env.step([0.5])
    message = refusal(env.step, [float("nan")])
    assert "was given the action [nan], at step 2; the policy is no longer finite" in message


@pytest.mark.slow
def test_what_was_learned_before_a_bad_step_is_saved(tmp_path):
    env_id = "tasks:NotANumber-v0"
    status, out, err = run("td3", "--train", "--env", env_id, "--episodes", 6, "--batch-size", 8,
                           "--hidden-dim", 8, "--checkpoint-every", 1, cwd=tmp_path,
                           PYTHONPATH=str(ROOT / "tests"))
    assert (status, len(err)) == (1, 1)
    assert err[0] == (
        f"td3.py: --env {env_id}: its step() returned the reward nan, no finite number in float32, "
        "at step 10; correct that or take another --env (the same command with --resume goes on "
        "after episode 3)"
    )
    assert "\n".join(out).count("Saved ") == 2


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
    env = wrapped(close=raising(OSError("gone")))
    env.close()
    env.close()
    assert capsys.readouterr().out == "--env Task-v0: its close() failed (OSError: gone).\n"


@pytest.mark.parametrize("prefix", ["", "gymnasium:"])
def test_pendulum_v0_runs_as_v1_and_says_so_once(prefix, capsys):
    present_id.cache_clear()
    assert present_id(f"{prefix}Pendulum-v0") == f"{prefix}Pendulum-v1"
    env = make(f"{prefix}Pendulum-v0")
    assert env.env_id == f"{prefix}Pendulum-v1" and env.unwrapped.spec.id == "Pendulum-v1"
    said = "Gym replaced Pendulum-v0 with Pendulum-v1: Pendulum-v1 runs.\n"
    assert capsys.readouterr() == (said, "")
    assert present_id("mine:Pendulum-v0") == "mine:Pendulum-v0"


def test_gym_comes_first_and_the_prefix_asks_for_gymnasium():
    assert isinstance(make("Pendulum-v1").unwrapped, gym.Env)
    assert isinstance(make("gymnasium:Pendulum-v1").unwrapped, gymnasium.Env)
    registered(gymnasium, class_of(gymnasium), "OnlyThere-v0")
    env = make("OnlyThere-v0")
    assert isinstance(env.unwrapped, gymnasium.Env) and env.env_id == "OnlyThere-v0"


def test_gymnasium_serves_where_gym_cannot_make_it():
    """gym's tasks of MuJoCo fail with every MuJoCo of today."""
    registered(gym, raising(ValueError("XML Error")))
    registered(gymnasium, class_of(gymnasium))
    assert isinstance(make("Walk-v0").unwrapped, gymnasium.Env)


def test_without_gym_gymnasium_serves_and_without_both_one_line_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "gym.envs.registration", None)
    assert isinstance(make("Pendulum-v1").unwrapped, gymnasium.Env)
    monkeypatch.setitem(sys.modules, "gymnasium.envs.registration", None)
    message = refusal(make, "Pendulum-v1")
    assert "--env Pendulum-v1" in message and "pip install gymnasium" in message


@pytest.mark.parametrize("written", ["./mine:Task-v0", "./mine.py:Task-v0"])
def test_a_module_that_is_written_as_a_file(written, here):
    (here / "mine.py").write_text("import gym\ngym.register('Task-v0', lambda: None)\n")
    assert refusal(make, written).endswith("; write --env mine:Task-v0.")


@pytest.mark.parametrize(
    ("mine", "helper", "place", "reason"),
    [
        ("import gym\nx = undefined\n", "", "mine.py, line 2", "NameError: name 'undefined'"),
        ("import gym\n\ndef f(:\n", "", "(mine.py, line 3)", "SyntaxError"),
        ("import helper\n", "\nx = 1/0\n", "helper.py, line 2", "ZeroDivisionError"),
        ("import sys\nsys.exit(0)\n", "", "mine.py, line 2", "SystemExit: 0"),
        ("import gym\ngym.register()\n", "", "mine.py, line 2", "TypeError"),
        ("import no_such_thing\n", "", "mine.py, line 1", "pip install no_such_thing"),
    ],
)
def test_a_module_of_ones_own_that_fails(mine, helper, place, reason, here):
    (here / "mine.py").write_text(mine)
    (here / "helper.py").write_text(helper)
    message = refusal(make, "mine:Task-v0")
    assert message.startswith("--env mine:Task-v0: ") and place in message
    assert "cannot import mine (" in message and reason in message
    assert "start in the folder" not in message


@pytest.mark.parametrize("mine", ["broken()", "import gym\ngym.register('Stopped-v0', broken)"])
def test_what_stops_us_while_it_is_made_passes(mine, here, monkeypatch):
    (here / "mine.py").write_text(mine)
    monkeypatch.setattr("builtins.broken", raising(Stopped(143)), raising=False)
    with pytest.raises(Stopped):
        make("mine:Stopped-v0")


@pytest.mark.parametrize(
    ("env_id", "hint"),
    [
        ("Pendulm-v1", "did you mean Pendulum-v1?"),
        ("gymnasium:pendulum-v1", "did you mean gymnasium:Pendulum-v1?"),
        ("Pendulum-v5", "did you mean Pendulum-v1?"),
        ("Pendulum", "did you mean Pendulum-v1?"),
        ("Ant-v99", "did you mean Ant-v5?"),  # only Gymnasium has this one
        ("no spaces", "try Pendulum-v1"),
        ("", "try Pendulum-v1"),
    ],
)
def test_unknown_id(env_id, hint):
    assert refusal(make, env_id) == f"--env {env_id}: there is no such environment; {hint}"


@pytest.mark.parametrize(
    ("env_id", "hint"),
    [
        ("own_task", "write --env own_task:ID, with the ID that it registers"),
        ("sys:Walk-v0", "sys is another module (built in): rename sys.py"),
    ],
)
def test_a_module_that_is_named_otherwise(env_id, hint, here):
    """Or as one of Python's; what it does to NumPy's errors is its own affair."""
    for name in "own_task", "sys":
        (here / f"{name}.py").write_text(
            "import numpy, gym\nnumpy.seterr(all='raise')\ngym.register('Walk-v0', lambda: None)\n")
    assert refusal(make, env_id) == f"--env {env_id}: there is no such environment; {hint}"
    assert np.geterr()["under"] == "ignore"


@each_library
@pytest.mark.parametrize("options", [{}, {"render": True}, {"record": "film.gif"}])
@pytest.mark.parametrize(
    ("error", "step"),
    [
        (ModuleNotFoundError("no jax", name="jax.numpy"), "pip install jax"),
        ("box2D: run `pip install gym[box2d]`", "pip install -r requirements-envs.txt"),
        ("No module named 'mujoco_py'", "take its -v5 and pip install -r requirements-envs.txt"),
        (ImportError("no such\nname", name="numpy"), "--verbose shows where"),
        (SystemExit(2), "--verbose shows where"),
    ],
)
def test_an_environment_that_cannot_be_made(library, options, error, step, display, sdl, capsys):
    if isinstance(error, str):
        error = library.error.DependencyNotInstalled(error)
    env_id = registered(library, raising(error))
    message = refusal(make, env_id, **options)
    assert message.startswith(f"--env {env_id}: cannot be made ({type(error).__name__}: ")
    assert message.endswith(f"); {step}.")
    assert capsys.readouterr().out == ""  # it was not the window


@pytest.mark.parametrize(
    ("space", "unit", "high", "played"),
    [
        (box([-0.4], [0.4]), False, [0.4], [([0.3], [0.3]), ([7], [0.4]), ([-7.0], [-0.4])]),
        (
            box([0, -3], [1, 5], np.float64),
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
    env = wrapped(action_space=space, unit_actions=unit)
    env.reset()
    assert type(env.action_space) is type(space) and env.action_space.dtype == np.float32
    np.testing.assert_array_equal(env.action_space.high, np.float32(high))
    np.testing.assert_array_equal(env.action_space.low, -env.action_space.high)
    for ours, theirs in played:
        given = np.array(ours, space.dtype)
        env.step(given)
        action = env.unwrapped.actions[-1]
        assert action.dtype == space.dtype and action.shape == space.shape
        np.testing.assert_array_equal(action, np.asarray(theirs, space.dtype))
        action[:] = 99  # the environment was given an array of its own
        np.testing.assert_array_equal(given, np.array(ours, space.dtype))


F32 = np.finfo(np.float32).max  # stands for infinity


@pytest.mark.parametrize(
    ("what", "space", "reason"),
    [
        ("action", gym.spaces.Discrete(4), "Discrete(4) are not continuous"),
        ("action", gymnasium.spaces.MultiDiscrete([2, 3]), "MultiDiscrete([2 3]) are not cont"),
        ("action", gym.spaces.Dict(a=UNIT), "not continuous"),
        ("action", box([0], [9], np.int64), "not continuous"),
        ("action", None, "not continuous"),
        ("action", box([-1, -np.inf], [1, 1]), "no bounds"),
        ("action", box([-F32], [F32]), "no bounds"),
        ("action", box([-1, 2], [1, 2]), "low equals high"),
        ("action", box([], []), "low equals high"),
        ("action", box(np.full((9, 9), -np.inf), np.ones((9, 9))), "no bounds"),  # on many lines
        *(("observation", space, "are no vectors") for space in (
            IMAGE,
            gymnasium.spaces.Box(0, 255, (8, 8), np.uint8),
            gym.spaces.Dict(a=UNIT, b=gym.spaces.Tuple((IMAGE,))),
            gymnasium.spaces.Sequence(gymnasium.spaces.Discrete(2)),
            gymnasium.spaces.Graph(gymnasium.spaces.Box(0, 1, (2,)), None),
            gym.Space(),
            None,
            box([], []),
        )),
    ],
)
def test_spaces_that_no_agent_can_have(what, space, reason):
    message = refusal(wrapped, **{f"{what}_space": space})
    assert message.startswith(f"--env Task-v0: its {what}s ")
    assert reason in message and "such as Pendulum-v1" in message


def seen(space, observation):
    env = wrapped(observation_space=space, observation=observation)
    first, (second, *_) = env.reset(), env.step([0.0])
    np.testing.assert_array_equal(first, second)
    assert first.dtype == env.observation_space.dtype == np.float32
    assert env.observation_space.shape == first.shape
    return first.tolist()


@pytest.mark.parametrize("spaces", [gym.spaces, gymnasium.spaces])
def test_observations_become_vectors(spaces):
    matrix = np.arange(6.0).reshape(2, 3)
    bits = spaces.MultiBinary(3)
    assert seen(spaces.Box(-9.0, 9.0, (2, 3), np.float64), matrix) == [0, 1, 2, 3, 4, 5]
    assert seen(spaces.Box(0, 9, (), np.float32), 3.0) == [3]
    assert seen(spaces.Box(0, 255, (3,), np.uint8), np.uint8([1, 2, 255])) == [1, 2, 255]
    assert seen(spaces.Discrete(3, start=5), 5) == [1, 0, 0]
    assert seen(spaces.Tuple((spaces.Discrete(2), bits)), (1, [0, 1, 1])) == [0, 1, 0, 1, 1]
    parts = spaces.Dict(a=spaces.Discrete(2), b=spaces.Box(-9, 9, (1,), np.float32))
    assert seen(parts, {"a": 0, "b": np.float32([7])}) == [1, 0, 7]
    for bad in (None, {"a": 0}, {"a": 0, "b": np.zeros(2)}, {"a": 0, "b": np.float32([np.nan])}):
        env = wrapped(observation_space=parts, observation=bad)
        assert refusal(env.reset).startswith("--env Task-v0: its reset() returned ")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_state_is_never_the_environments_own_array(dtype):
    array = np.array([1.0, 2.0], dtype)
    env = wrapped(observation=array)
    first, (second, *_) = env.reset(), env.step([0.0])
    array[:] = 9
    assert first.tolist() == second.tolist() == [1, 2]


def test_an_environment_that_is_refused_is_closed():
    walk = class_of(gym, action_space=None)
    assert refusal(make, registered(gym, walk)).startswith("--env Walk-v0: its actions ")
    gc.collect()
    assert walk.instances[0].closed


NO_DISPLAY = "No display: playing on without a window.\n"


@pytest.fixture
def display(monkeypatch):
    """A screen, as far as SDL can tell; the tests' windows are fakes."""
    screen = types.SimpleNamespace(init=lambda: None, get_driver=lambda: "x11", quit=lambda: None)
    monkeypatch.setitem(sys.modules, "pygame", types.SimpleNamespace(display=screen))
    monkeypatch.setenv("DISPLAY", ":0")


@pytest.fixture
def sdl(monkeypatch):
    """What make() sets for SDL is gone after the test."""
    monkeypatch.setenv("SDL_VIDEODRIVER", "")
    monkeypatch.delenv("SDL_VIDEODRIVER")


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


@pytest.mark.parametrize(
    ("env_id", "system", "screen", "driver"),
    [
        *((env_id, "linux", None, None) for env_id in PENDULUM),
        *(("Pendulum-v1", system, ":0", driver)  # a driver that shows nothing
          for system in ("linux", "darwin") for driver in ("dummy", "offscreen")),
    ],
)
def test_no_display(env_id, system, screen, driver, monkeypatch, capsys):
    monkeypatch.setattr(sys, "platform", system)
    variables = {"DISPLAY": screen, "WAYLAND_DISPLAY": None, "SDL_VIDEODRIVER": driver}
    for name, value in variables.items():
        monkeypatch.setenv(name, value or "")
        if value is None:
            monkeypatch.delenv(name)
    env = make(env_id, render=True)
    assert env.unwrapped.render_mode is None and played(env) == played(make(env_id))
    assert capsys.readouterr() == (NO_DISPLAY, "")


@each_library
def test_a_window_changes_nothing(library, display, capsys):
    """Gymnasium's is taken where both libraries have the task: it draws what gym's cannot."""
    for each in LIBRARIES:
        env_id = registered(each, class_of(each), max_episode_steps=3)
    env_id = "Walk-v0" if library is gym else env_id
    env = make(env_id, render=True)
    assert env.unwrapped.render_mode == "human" and isinstance(env.unwrapped, gymnasium.Env)
    assert played(env) == played(make(env_id)) and capsys.readouterr().out == ""


@each_library
@pytest.mark.parametrize("way", ["knows of none", "fails"])
def test_a_window_that_cannot_be_opened(library, way, display, capsys):
    class Blind(class_of(library)):
        def __init__(self, **options):
            if options and way == "fails":
                raise RuntimeError("no\nGL")
            super().__init__()

    if way == "knows of none":  # as the environment in the README
        Blind.__init__ = lambda self: super(Blind, self).__init__()
    env_id = registered(library, Blind)
    env = make(env_id, render=True)
    assert env.unwrapped.render_mode is None and played(env) == played(make(env_id))
    captured = capsys.readouterr()
    assert captured.out.startswith("No window can be opened (") and captured.out.count("\n") == 1
    assert captured.err == ""


def test_nothing_on_the_screen_and_nothing_imported_early():
    code = (
        "import sys\n"
        "from common.tasks import making\n"
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
