"""The Python listings of docs/environments.md and docs/library.md, as they stand there, and run.

So are the lines that environments.md says the scripts say. In Chinese, the listings are the same.
"""

import io
import multiprocessing
import os
import re
import signal
import subprocess
import tokenize
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import tasks
import tensorflow as tf
from agents import made, running, seed_everything, small_ddpg, transitions, values
from commands import command, refusal, run

import sac
from common.engine.variables import variables_of
from common.files.names import ROOT
from common.flags import Command
from common.pendulum import page
from common.tasks import film, making
from common.tasks.making import make
from common.training.evaluation import Evaluation
from ddpg import DDPG

here, registries = tasks.here, tasks.registries
DOCUMENTS = ["environments", "library"]


def text(document):
    return (ROOT / "docs" / f"{document}.md").read_text(encoding="utf-8")


def listings(document):
    """A document's Python listings, in their order."""
    return re.findall(r"^```python\n(.+?)^```$", text(document), re.DOTALL | re.MULTILINE)


def tokens(code):
    """A listing's tokens, but for its comments and blank lines."""
    read = tokenize.generate_tokens(io.StringIO(code).readline)
    return [token.string for token in read if token.type not in (tokenize.COMMENT, tokenize.NL)]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_both_languages_have_the_same_listings(document):
    ours, theirs = listings(document), listings(f"{document}.zh-CN")
    assert [*map(tokens, ours)] == [*map(tokens, theirs)]
    assert len(ours) > 3 and "#" in "".join(ours)


# --- docs/environments.md


def tasks_of_the_page():
    """The listings of environments.md: dict from what --env names to the code."""
    codes = listings("environments")
    ids = [re.search(r'gym\.register\("(.+?)"', code)[1] for code in codes]
    page = text("environments")
    files = [re.search(rf"--env (\w+):{name}$", page, re.MULTILINE)[1] for name in ids]
    assert re.findall(r"^As `(\w+)\.py`", page, re.MULTILINE) == files
    return {f"{file}:{name}": code for file, name, code in zip(files, ids, codes)}


TASKS = tasks_of_the_page()


def listed(env_id, folder):
    """The Environment of a listing, which is written where a reader would have it."""
    file = folder / f"{env_id.partition(':')[0]}.py"
    file.write_text(TASKS[env_id], encoding="utf-8")
    return make(env_id)


def played(env, actions=(0.5, -1.0, 0.25)):
    """An episode's states and rewards."""
    states, rewards = [env.reset()], []
    for action in actions:
        state, reward, _, _ = env.step([action])
        states.append(state)
        rewards.append(reward)
    return np.array(states), np.array(rewards)


@pytest.mark.parametrize("env_id", TASKS)
def test_an_environment_is_played_and_goes_on(env_id, here):
    """A seed repeats it, and the states of its generators do."""
    env, other = listed(env_id, here), make(env_id)
    for one in env, other:
        one.seed(1)
    for ours, theirs in zip(played(env), played(other)):
        np.testing.assert_array_equal(ours, theirs)
    third = make(env_id)
    third.seed(4)
    third.restore_generators(env.generator_states())
    np.testing.assert_array_equal(played(env)[0], played(third)[0])
    while not env.step([0.0])[2]:
        pass
    assert not env.terminal
    assert env.lengths[-1] == (50 if env_id == "mine:Task-v0" else 200)
    for one in env, other, third:
        one.close()


def of_pendulum(actions=(0.5, -1.0, 0.25)):
    env = make("Pendulum-v1")
    env.seed(1)
    return played(env, actions)


def test_another_reward(here):
    env = listed("spin:Spin-v0", here)
    env.seed(1)
    states, rewards = played(env)
    np.testing.assert_array_equal(states, of_pendulum()[0])
    np.testing.assert_allclose(rewards, np.abs(states[1:, 2]), rtol=1e-6)


def test_another_observation(here):
    env = listed("angle:Angle-v0", here)
    env.seed(1)
    (angle, speed), rewards = played(env)[0].T, played(env)[1]
    cosine, sine, expected = of_pendulum()[0].T
    np.testing.assert_allclose([np.cos(angle), np.sin(angle), speed], [cosine, sine, expected],
                               rtol=1e-5, atol=1e-6)
    assert env.observation_space.shape == (2,) and (rewards < 0).all()


def test_a_simulator_in_a_process_of_its_own(here):
    env = listed("apart:Apart-v0", here)
    env.seed(1)
    process = env.unwrapped.process
    states, rewards = played(env)
    pendulum = gymnasium.make("Pendulum-v1")
    pendulum.reset(seed=int(gymnasium.utils.seeding.np_random(1)[0].integers(2**31)))
    for action, state, reward in zip((0.5, -1.0, 0.25), states[1:], rewards):
        expected, expected_reward, *_ = pendulum.step(np.float32([action]))
        np.testing.assert_array_equal(state, expected)
        assert reward == expected_reward
    assert process.is_alive() and process in multiprocessing.active_children()
    env.close()
    assert process.exitcode == 0


def test_a_simulator_that_dies(here):
    env = listed("apart:Apart-v0", here)
    env.reset(seed=1)
    env.unwrapped.process.kill()
    env.unwrapped.process.join()
    line = r"its step\(\) failed \((BrokenPipe|EOF|ConnectionReset)Error"
    assert re.search(line, refusal(env.step, [0.0]))
    assert "`its step() failed (" in text("environments")


@pytest.mark.slow
def test_a_command_of_the_page(here):
    script, line = re.search(r"^python (\w+)\.py (--train .*--env apart:.*)$", text("environments"),
                             re.MULTILINE).groups()
    listed("apart:Apart-v0", here).close()
    status, out, err = run(script, *line.split(), "--episodes", 2, "--batch-size", 16,
                           "--hidden-dim", 8, "--test-episodes", 1, "--evaluate-every", 60,
                           "--evaluation-episodes", 1, cwd=here)
    assert (status, err) == (0, [])
    assert "Testing | Episodes: 1" in out[-1] and (here / "model").is_dir()


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Ctrl-C goes to a process group")
def test_ctrl_c_and_a_simulator_in_a_process_of_its_own(here):
    """A terminal's Ctrl-C goes to the simulator, too."""
    listed("apart:Apart-v0", here).close()
    line = command("td3", "--train", "--env", "apart:Apart-v0", "--hidden-dim", 8,
                   "--episodes", 500)
    with subprocess.Popen(line, cwd=here, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True, start_new_session=True) as process:
        for line in process.stdout:
            if "Episode: 2/" in line:
                os.killpg(process.pid, signal.SIGINT)
                break
        said, stderr = process.communicate(timeout=200)
    assert process.returncode == 130 and "Traceback" not in stderr
    assert re.search(r"Stopped after \d+ of 500 episodes: the same command", said)


# What is refused: a change of the first listing, as (old, new), and what --env names.
CHANGES = {
    "no arguments": [("self, seed=None, options=None", "self"), ("seed=seed", "")],
    "no info": [("return self.place, {}", "return np.zeros(1)")],
    "four": [("False, False, {}", "False, {}")],
    "size": [("return self.place, {}", "return np.zeros(2), {}")],
    "not finite": [("-abs(self.place[0])", 'float("nan")')],
    "a choice": [("gym.spaces.Box(-1, 1, (1,))", "gym.spaces.Discrete(3)")],
    "no bounds": [("gym.spaces.Box(-1, 1, (1,))", "gym.spaces.Box(-np.inf, np.inf, (1,))")],
    "an image": [("Box(-20, 20, (1,))", "Box(0, 255, (8, 8, 3), np.uint8)")],
    "an error": [("self.place = self.place + action", 'raise ValueError("no such torque")')],
    "another ID": [("Task-v0", "Tusk-v0")],
}
OLD_GYM = """\
import gym
class Half(gym.RewardWrapper):
    def reward(self, reward):
        return reward / 2
gym.register("Task-v0", lambda: Half(gym.make("Pendulum-v1")))
"""


def changed(*changes):
    """The first listing with other lines."""
    code = TASKS["mine:Task-v0"]
    for old, new in changes:
        assert old in code
        code = code.replace(old, new)
    return "import numpy as np\n" + code


def tried(env_id):
    env = make(env_id)
    env.seed(1)
    env.reset()
    env.step([0.0])


def said():
    """What environments.md says is said, the second cells of its tables."""
    rows = re.findall(r"^\| .*\|$", text("environments"), re.MULTILINE)
    return [cell.strip().strip("`") for cell in (row.split(" | ")[1] for row in rows)]


@pytest.mark.parametrize("what", [*CHANGES, "gym"])
def test_what_is_refused(what, here):
    code = OLD_GYM if what == "gym" else changed(*CHANGES[what])
    code = code.replace("Tusk", "Task")
    (here / "mine.py").write_text(code, encoding="utf-8")
    env_id = "mine:Tusk-v0" if what == "another ID" else "mine:Task-v0"
    assert refusal(tried, env_id).removeprefix(f"--env {env_id}: ") in said()


@pytest.mark.parametrize("env_id", ["mine.Task-v0", "mine.py:Task-v0", "mine:Task-v0",
                                    "platform:Task-v0"])
def test_what_env_names(env_id, here):
    for name in {"mine", "platform"} if env_id != "mine:Task-v0" else ():
        (here / f"{name}.py").write_text(changed(), encoding="utf-8")
    line = refusal(tried, env_id).replace(str(here), "...")
    assert re.sub(r"another module \(.+?\)", "another module (...)", line) in said()


def test_one_at_a_time(here):
    limit = "    def __init__(self):\n        if Task.open: raise OSError('the port is in use')\n" \
            "        Task.open = True\n    open = False\n    def reset("
    (here / "mine.py").write_text(changed(("    def reset(", limit)), encoding="utf-8")
    env = make("mine:Task-v0")
    assert refusal(Evaluation(env, 50).returns, None, [1]) in said()


def test_what_works_with_a_limit(here, monkeypatch, capsys):
    monkeypatch.setattr(making, "_said", set())
    code = changed(("Task, max", "lambda: gym.wrappers.NormalizeObservation(Task()), max"))
    (here / "mine.py").write_text(code, encoding="utf-8")
    for _ in range(2):  # it is said once
        make("mine:Task-v0")
    assert capsys.readouterr().out.strip() in said()


def test_a_generator_that_reset_makes(here, capsys):
    own = "self.rng = np.random.default_rng(seed)\n        self.place ="
    code = changed(("self.place = self.np", f"{own} self.np"))
    (here / "mine.py").write_text(code, encoding="utf-8")
    env = make("mine:Task-v0")
    env.reset(seed=1)
    make("mine:Task-v0").restore_generators(env.generator_states())
    assert capsys.readouterr().out.strip() in said()


@pytest.mark.slow
def test_a_film_of_another_episode(here, monkeypatch):
    code = changed(("super().reset(seed=seed)", "super().reset()"),
                   ("Task(gym.Env):", "Task(gym.Env):\n    metadata = {'render_fps': 10}\n"
                    "    render_mode = None\n    def __init__(self, render_mode=None): pass\n"
                    "    def render(self): return np.zeros((8, 8, 3), np.uint8)\n"))
    (here / "mine.py").write_text(code, encoding="utf-8")
    monkeypatch.setattr(film, "START", str(here))  # where the process that draws starts
    env = make("mine:Task-v0", record="film.gif")
    played(env)
    assert refusal(env.close).replace("film.gif", "...").replace(f"{here}/", "") in said()


# --- docs/library.md


def with_a_batch(agent):
    """The agent with 64 transitions."""
    store = agent.store_transition if isinstance(agent, DDPG) else agent.replay_buffer.push
    for transition in transitions(64):
        store(*transition)
    return agent


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """ran(word) -> the names of the listing of library.md that has it, which is run; once."""
    found = {}

    def run(word):
        if word not in found:
            (code,) = [code for code in listings("library") if word in code]
            seed_everything()
            with pytest.MonkeyPatch.context() as patch, small_ddpg(BATCH_SIZE=8):
                patch.chdir(tmp_path_factory.mktemp("library"))
                patch.setattr(sac, "SoftQNetwork", sac.SoftQNetwork)  # which a listing assigns
                found[word] = {"folder": Path.cwd()}
                made(exec, code, found[word])
        return found[word]

    return run


def test_every_listing_has_its_test():
    words = "my_td3", "Gentle", "Prioritised", "alpha=0.2", "DeepQ", "5_000"
    assert [sum(word in code for word in words) for code in listings("library")] == [1] * 6


@pytest.mark.slow
def test_the_first_listing(ran, capsys):
    names = ran("my_td3")
    assert re.search(r"^\[[-\d.e]+\]$", capsys.readouterr().out, re.MULTILINE)
    assert (names["folder"] / "my_td3.npz").is_file()
    agent, other = names["agent"], names["other"]
    assert int(agent.q_optimizer1.iterations) == 1
    state = [0.3, -0.2, 0.9]
    np.testing.assert_array_equal(agent.policy_net.get_action(state, 0.0, True),
                                  other.policy_net.get_action(state, 0.0, True))


@pytest.mark.slow
def test_a_loss_of_ones_own(ran, capsys):
    """Compiled as it is uncompiled; the policy's loss is the one of the listing."""
    agent = ran("Gentle")["agent"]
    with_a_batch(agent)
    twin = ran("Gentle")["Gentle"](3, 1, agent.replay_buffer, hidden_dim=32, action_range=2.0)
    for one, other in zip(variables_of(twin).values(), variables_of(agent).values()):
        one.assign(other)
    weights = [variable.numpy() for variable in agent.policy_net.trainable_weights]
    state, generator = np.random.get_state(), agent.replay_buffer.generator.bit_generator.state
    agent.update(8, 0.5, 1.0, n_updates=2)
    np.random.set_state(state)
    agent.replay_buffer.generator.bit_generator.state = generator
    with running("eager"):
        twin.update(8, 0.5, 1.0, n_updates=2)
    for name, value in values(agent).items():
        np.testing.assert_allclose(value, values(twin)[name], 2e-3, 2e-4, err_msg=name)
    assert agent.losses["effort"] >= 0 and {"loss/q1", "loss/policy"} <= agent.losses.keys()
    assert any((weight != variable.numpy()).any()
               for weight, variable in zip(weights, agent.policy_net.trainable_weights))
    assert int(agent.policy_optimizer.iterations) == 2
    assert "slower" not in capsys.readouterr().out


@pytest.mark.slow
def test_prioritised_replay(ran, capsys):
    """With equal weights it is DDPG's own update; weights, draws and priorities are the paper's."""
    kind = ran("Prioritised")["Prioritised"]
    with small_ddpg(BATCH_SIZE=8, MEMORY_CAPACITY=64):
        seed_everything()
        agent = with_a_batch(made(kind, 1, 3, 2.0))
        seed_everything()
        usual = with_a_batch(made(DDPG, 1, 3, 2.0))
        assert (agent.priorities == 1.0).all()
        with running("eager"):
            batch = agent.memory[:8]
            ours, theirs = agent.update_networks(batch, np.ones(8)), usual.update_networks(batch)
        assert ours["loss/critic"] == pytest.approx(theirs["loss/critic"], rel=1e-5)
        for name, value in values(agent).items():
            np.testing.assert_allclose(value, values(usual)[name], 1e-4, 1e-5, err_msg=name)

        agent.priorities[:] = np.arange(64.0)
        given = {}

        original = kind.update_networks.method

        def watch(self, bt, weights):
            given.update(bt=bt, weights=weights)
            return original(self, bt, weights)

        with running("eager"), pytest.MonkeyPatch.context() as patch:
            patch.setattr(kind.update_networks, "method", watch)
            agent.learn()
        weights = np.asarray(given["weights"])
        rows = [int(np.flatnonzero((agent.memory == row).all(1))[0]) for row in given["bt"].numpy()]
        expected = np.arange(64.0)[rows] ** -0.4
        np.testing.assert_allclose(weights, expected / expected.max(), rtol=1e-5)
        assert 0 not in rows and agent.priorities[0] == 0.0
        assert (agent.priorities[rows] != np.arange(64.0)[rows]).all()
        assert "errors" not in agent.losses

        agent.learn(2)  # compiled
        assert np.isfinite([*agent.losses.values()]).all()
        agent.store_transition(*transitions(1)[0])
        assert agent.priorities[0] == agent.priorities.max() > 0.0
    assert "slower" not in capsys.readouterr().out


@pytest.mark.slow
def test_a_fixed_alpha(ran):
    agent = ran("alpha=0.2")["agent"]
    with_a_batch(agent)
    assert float(agent.alpha) == pytest.approx(0.2)
    agent.update(8)
    assert float(agent.alpha) == pytest.approx(0.2)
    agent.fixed_alpha = 0.1
    agent.update(8, auto_entropy=False)
    assert float(agent.alpha) == pytest.approx(0.1)
    flags = re.search(r"`python sac.py (--train --alpha .+?)`", text("library"))[1].split()
    assert Command(ROOT / "sac.py").read(flags).constants["ALPHA"] == 0.2


@pytest.mark.slow
def test_a_fourth_layer(ran, tmp_path, capsys):
    names = ran("DeepQ")
    agent, kind = names["agent"], names["DeepQ"]
    nets = [agent.soft_q_net1, agent.soft_q_net2, agent.target_soft_q_net1,
            agent.target_soft_q_net2]
    assert all(type(net) is kind and len(net.trainable_weights) == 8 for net in nets)
    with_a_batch(agent)
    before = agent.soft_q_net1.linear4.W.numpy(), agent.soft_q_net1.linear3.W.numpy()
    agent.update(8)
    after = agent.soft_q_net1.linear4.W.numpy(), agent.soft_q_net1.linear3.W.numpy()
    assert all((one != other).any() for one, other in zip(before, after))
    critics = page.described(agent, Command(ROOT / "sac.py").settings())["critics"]
    assert [critic["sizes"] for critic in critics] == [[4, 32, 32, 32, 1]] * 2
    agent.load(agent.save(str(tmp_path / "deep.npz")))
    assert sac.SoftQNetwork is not kind and "slower" not in capsys.readouterr().out


@pytest.mark.slow
def test_a_loop_of_ones_own(ran):
    """It learns: a policy that does nothing has about -1200."""
    names = ran("5_000")
    assert len(names["returns"]) == 100 and np.mean(names["returns"]) > -600
    assert tf.executing_eagerly()
