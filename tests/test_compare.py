"""compare.py: what is compared, the statistics, and runs that are stopped, killed or wrong."""

import asyncio
import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import tasks

import compare
from common.comparison import cluster, picture, runs, statistics
from common.errors import UserError
from common.files.digest import digest
from common.files.lock import locked
from common.files.names import ROOT

here, registries = tasks.here, tasks.registries
TINY = ["--steps", "600", "--max-steps", "60", "--evaluate-every", "200", "--batch-size", "16",
        "--evaluation-episodes", "2", "--explore-steps", "40", "--hidden-dim", "16",
        "--checkpoint-every", "1"]


def settings(line):
    return {one.label: one for one in compare.settings_of(*compare.parse(line.split()))}


def test_every_combination_is_a_curve():
    found = settings("--algorithms ddpg td3 --gamma 0.9 0.99 --soft-tau 0.01 0.1 --steps 12e3")
    assert list(found) == [
        "DDPG, gamma 0.9",  # which has no --soft-tau
        "DDPG, gamma 0.99",
        "TD3, gamma 0.9, soft-tau 0.01",
        "TD3, gamma 0.9, soft-tau 0.1",
        "TD3, gamma 0.99, soft-tau 0.01",
        "TD3, gamma 0.99, soft-tau 0.1",
    ]
    one = found["TD3, gamma 0.99, soft-tau 0.1"]
    assert (one.args.script.name, one.args.preset, one.args.train_steps) == ("td3.py", "chapter",
                                                                             12000)
    assert (one.args.constants["GAMMA"], one.args.constants["SOFT_TAU"]) == (0.99, 0.1)
    assert "--gamma 0.99" in " ".join(one.words)


def test_presets_and_switches_can_be_compared():
    found = settings("--algorithms sac --preset chapter paper --no-auto-entropy")
    assert list(found) == ["SAC, preset chapter", "SAC, preset paper"]
    assert [one.args.constants["HIDDEN_DIM"] for one in found.values()] == [32, 256]
    assert not any(one.args.constants["AUTO_ENTROPY"] for one in found.values())


def test_a_changed_copy_of_a_script_takes_part(tmp_path, monkeypatch):
    monkeypatch.setattr(compare, "ROOT", tmp_path)
    text = (ROOT / "td3.py").read_text(encoding="utf-8")
    (tmp_path / "td3.py").write_text(text, encoding="utf-8")
    (tmp_path / "mytd3.py").write_text(text.replace('"TD3"', '"MyTD3"'), encoding="utf-8")
    assert [*settings("--algorithms td3 mytd3.py")] == ["TD3", "MyTD3"]


def test_seeds():
    assert compare.parse(["--seeds", "0-3", "2", "7"])[0].seeds == [0, 1, 2, 3, 7]
    assert compare.parse([])[0].seeds == list(range(10))


def test_a_folder_is_named_after_what_determines_the_run():
    def folder(line, seed=1, **changes):
        (one,) = settings(line).values()
        return replace(one, seed=seed, **changes).folder("r")

    one = folder("--algorithms td3")
    assert one == folder("--algorithms td3 --gamma 0.9")  # the default
    assert one != folder("--algorithms td3 --gamma 0.8")
    assert one != folder("--algorithms td3 --steps 30000")
    assert one != folder("--algorithms td3", digest={"code": "another"})
    assert one.is_absolute()
    pattern = r".*/r/td3_Pendulum-v1_[0-9a-f]{10}_[0-9a-f]{10}/seed1"
    assert re.fullmatch(pattern, one.as_posix())
    assert folder("--algorithms td3", 2) == one.parent / "seed2"


def test_the_command_is_told_without_the_places():
    line = "--seeds 3 4 5 --algorithms sac --gamma 0.9 0.99 --runs-dir x --no-auto-entropy"
    found = compare.command(*compare.parse(line.split()))
    assert found == (
        "python compare.py --algorithms sac --seeds 3-5 --gamma 0.9 0.99 --no-auto-entropy"
    )


@pytest.mark.parametrize(("line", "message"), [
    ("--gama 0.9", "--gama is no constant of ddpg.py, td3.py, sac.py"),
    ("--env Pendulum-v1 Hopper-v5", "--env takes one environment"),
    ("--steps 100 --algorithms td3", r"--evaluate-every must be in \[1, --steps\]"),
    ("--evaluate-every 0", r"--evaluate-every must be in \[1, --steps\]"),
    ("--seed 3", "--seed: comparisons take several, use --seeds"),
    ("--episodes 5", "--episodes: comparisons count steps, use --steps"),
    ("--model-dir m", "--model-dir: each run has a folder of its own in --runs-dir"),
    ("--record film.gif", "--record is no constant of "),
    ("--algorithms td3 --gamma 0.9 .9", r"TD3, gamma \.9 gives the same runs as TD3, gamma 0\.9"),
    ("--algorithms sac --auto-entropy yes", "sac.py: unknown argument yes"),
])
def test_mistakes_are_named(line, message):
    with pytest.raises(UserError, match=message):
        settings(line)


@pytest.mark.parametrize(("line", "message"), [
    ("--algorithms ppo", "ppo.py is no script like td3.py"),
    ("--algorithms compare", "compare.py is no script like td3.py"),
    ("--seeds 7 5-2", "upward ranges such as 0-9, in [0, 4294967295], got '5-2'"),
    ("--seeds 4294967296", "in [0, 4294967295], got '4294967296'"),
    ("--workers 0", "--workers: must be in [1, 9999], got 0"),
    ("--name ../../x", "--name: must be a name for files"),
    ("word", "'word' belongs to no flag"),
    ("--gamma", "td3.py: argument --gamma: expected one argument"),
    ("--gamma 0.9 7", "td3.py: argument --gamma: must be in [0, 1], got 7"),
])
def test_mistakes_on_the_command_line_are_named(line, message, capsys):
    with pytest.raises(SystemExit) as error:
        settings(f"{line} --algorithms td3")
    assert error.value.code == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1


# ---- statistics


def test_iqm_is_the_mean_of_the_middle_half():
    values = np.array([100.0, 3.0, -50.0, 2.0, 4.0, 1.0, 7.0, -900.0])
    assert statistics.iqm(values) == np.mean([1, 2, 3, 4])
    assert statistics.iqm(np.array([5.0])) == 5.0


def test_the_interval_covers_the_true_iqm_as_often_as_it_says():
    values = np.random.default_rng(1).normal(3.0, 1.0, (10, 300))  # 300 experiments of 10 seeds
    low, high = statistics.band(values)
    covered = np.mean((low < 3.0) & (high > 3.0))
    assert 0.85 < covered < 0.97  # the percentile bootstrap of ten is a little too sure
    assert low.shape == (300,)


def test_below_five_seeds_the_band_is_their_range_and_called_so():
    values = np.random.default_rng(0).normal(size=(5, 20))
    np.testing.assert_array_equal(statistics.band(values[:4]), [values[:4].min(0),
                                                                values[:4].max(0)])
    low, high = statistics.band(values)
    assert (low > values.min(0)).any() and (high < values.max(0)).any()
    assert statistics.band_name([4]) == "range"
    assert statistics.band_name([5, 10]) == "95 % interval"
    assert statistics.band_name([2, 5]) == "95 % interval or range"


RESULTS = [
    {"evaluations": [[0, [-10.0, -20.0]], [110, [-5.0, -5.0]], [200, [0.0, 0.0]]],
     "test_returns": [-1.0, -3.0], "seconds": 4.0},
    {"evaluations": [[0, [-15.0]], [90, [-15.0]], [210, [-3.0]]],
     "test_returns": [-6.0, -6.0], "seconds": 6.0},
]


def test_curves_are_on_common_steps():
    steps, returns = statistics.curves(RESULTS, 100)
    np.testing.assert_array_equal(steps, [0, 100, 200])
    np.testing.assert_allclose(returns, [[-15, -15 + 10 * 100 / 110, 0], [-15, -14, -4]])


def test_table():
    (row,) = statistics.table({"TD3": RESULTS}, 100)
    area = np.mean([(-15 + 2 * (-15 + 1000 / 110) + 0) / 4, (-15 - 28 - 4) / 4])
    assert row == {"setting": "TD3", "seeds": 2, "mean": -4.0, "IQM": -4.0, "low": -6.0,
                   "high": -2.0, "worst_seed": -6.0, "area": pytest.approx(area), "seconds": 5.0}
    text = statistics.as_markdown([row], optimum=-1.25)
    assert text.startswith(
        "| setting | seeds | mean | IQM | range | worst seed | area | seconds |\n")
    assert "| TD3 | 2 | -4.0 | -4.0 | -6.0 to -2.0 | -6.0 | -9.2 | 5.0 |" in text
    assert {line.count("|") for line in text.splitlines()} == {9}
    (as_csv,) = csv.DictReader(statistics.as_csv([row]).splitlines())
    assert list(as_csv) == list(row) and as_csv["setting"] == "TD3"
    assert (float(as_csv["low"]), float(as_csv["seconds"])) == (-6.0, 5.0)


@pytest.mark.parametrize("optimum", [None, -0.5])
def test_curves_that_end_close_to_each_other_are_told_apart(optimum, tmp_path, monkeypatch):
    def learns(returns):
        return [{"evaluations": [[0, [-1500.0]], [700, [returns]], [1000, [returns]]]}] * 2

    drawn = []
    monkeypatch.setattr(picture, "save_figure", lambda path, figure: drawn.append(figure))
    found = {"TD3": learns(-2.0), "SAC": learns(-1.0),
             "short": [{"evaluations": [[0, [-1500.0]], [400, [-900.0]]]}]}
    picture.draw(tmp_path / "a.png", found, 100, "Task", optimum)
    whole, end = drawn[0].axes
    assert drawn[0].get_suptitle() == "Task: IQM and range over seeds"
    assert whole.get_xlim()[0] == 0 and end.get_xlim()[0] == 750
    assert whole.get_ylim()[0] < -1500
    bottom, top = end.get_ylim()
    assert -3 < bottom < -2 and (optimum or -1) < top < 0
    assert [line.get_label() for line in whole.lines[:3]] == ["TD3 (2 seeds)", "SAC (2 seeds)",
                                                              "short (1 seed)"]


# ---- what compare.py makes of its runs


def places(folder):
    return ["--runs-dir", str(folder / "runs"), "--image-dir", str(folder / "image")]


class Trainings:
    """Stands for runs.execute(): a dict says how often those of a seed fail first."""

    def __init__(self, monkeypatch, failures=()):
        self.failures, self.started = dict(failures), []
        monkeypatch.setattr(runs, "execute", self)

    async def __call__(self, run, folder, threads, note):
        self.started.append(run.seed)
        if self.started.count(run.seed) <= self.failures.get(run.seed, 0):
            raise UserError("killed by signal 9: the end")
        return {"evaluations": [[0, [-3.0, -1.0]], [600, [-1.0, 0.0]]],
                "test_returns": [-1.0, -2.0], "seconds": 1.0}


def test_a_run_that_failed_is_tried_once_more_and_reported(tmp_path, monkeypatch, capsys):
    trainings = Trainings(monkeypatch, {1: 1, 2: 2})
    line = [*places(tmp_path), "--algorithms", "td3", "--seeds", "0-2", *TINY]
    assert compare.main(line) == 1
    out, err = capsys.readouterr()
    assert sorted(trainings.started) == [0, 1, 1, 2, 2]
    assert "TD3, seed 1: killed by signal 9: the end; tried once more\n" in out
    assert err == ("compare.py: TD3, seed 2 failed: killed by signal 9: the end; the same command "
                   "tries again\n")
    assert "| TD3 | 2 |" in (tmp_path / "image" / "compare_Pendulum-v1.md").read_text()
    trainings = Trainings(monkeypatch)
    assert compare.main(line) == 0
    assert "Runs: 3, finished already: 2\n" in capsys.readouterr().out
    assert trainings.started == [2]


@pytest.mark.parametrize("steps", [60, 200])
def test_the_best_possible_is_told_of_whole_episodes(steps, tmp_path, monkeypatch):
    Trainings(monkeypatch)
    line = [*places(tmp_path), "--algorithms", "td3", "--seeds", "0", *TINY]
    compare.main([*line, "--max-steps", str(steps)])
    table = (tmp_path / "image" / "compare_Pendulum-v1.md").read_text()
    assert ("| best possible |" in table) == (steps == 200)


@pytest.mark.parametrize(("flags", "message"), [
    ([], r"runs: is in use by process \d+ .*--runs-dir\.$"),
    (["--env", "Nope-v0"], "--env Nope-v0: there is no such environment"),
    (["--runs-dir", "FILE"], "^--runs-dir .*FILE.*: cannot be written "),
    (["--image-dir", "FILE"], "^--image-dir .*FILE.*: cannot be written "),
])
def test_what_starts_nothing(flags, message, tmp_path, monkeypatch):
    (tmp_path / "FILE").write_text("kept")
    flags = [flag.replace("FILE", str(tmp_path / "FILE")) for flag in flags]
    trainings = Trainings(monkeypatch)
    refused = pytest.raises(UserError, match=message)
    with locked(tmp_path / "runs", "--runs-dir", "compare.lock"), refused:
        compare.main([*places(tmp_path), "--algorithms", "td3", *TINY, *flags])
    assert not trainings.started and (tmp_path / "FILE").read_text() == "kept"


TASK = """
import gymnasium
from gymnasium.envs.classic_control.pendulum import PendulumEnv

gymnasium.register("Task-v0", entry_point=PendulumEnv, max_episode_steps=60)
"""


def test_an_environment_of_ones_own_is_part_of_the_code(here, monkeypatch, capsys):
    trainings = Trainings(monkeypatch)
    line = [*places(here), "--algorithms", "td3", "--seeds", "0", "--env", "mine:Task-v0", *TINY]
    (here / "mine.py").write_text(TASK)
    assert compare.main(line) == 0
    assert (here / "image" / "compare_mine-Task-v0.png").exists()
    capsys.readouterr()
    (here / "mine.py").write_text(f"{TASK}# changed\n")
    assert compare.main(line) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "Runs: 1, finished already: 0"
    assert out[1] == ("1 of the others have finished with other code or packages; these results "
                      f"stay in {here / 'runs'} and are not used.")
    assert trainings.started == [0, 0] and len([*here.glob("runs/*/*/result.json")]) == 2


@pytest.fixture
def script(tmp_path, monkeypatch):
    """A function that puts a program in the place of td3.py: it returns a Run of it."""
    (here,) = settings("--algorithms td3").values()
    here = replace(here, seed=0)
    monkeypatch.setattr(runs, "ROOT", tmp_path)

    def put(source):
        (tmp_path / "td3.py").write_text(source)
        return replace(here, digest=digest(tmp_path / "td3.py"))

    return put


def test_a_run_that_fails_says_how_and_what(script, tmp_path):
    here = script("print('Evaluation | Step: 7 | Mean: 1')\nraise SystemExit('td3.py: no')")
    noted = []
    with pytest.raises(UserError, match=r"^exit status 1: td3\.py: no$"):
        asyncio.run(runs.execute(here, tmp_path / "run", 1, noted.append))
    assert noted == [7]
    assert "td3.py: no" in (tmp_path / "run" / "log.txt").read_text()
    if os.name != "nt":
        here = script("import os\nos.kill(os.getpid(), 9)")
        with pytest.raises(UserError, match=r"^killed by signal 9: it said nothing$"):
            asyncio.run(runs.execute(here, tmp_path / "run", 1))


def test_code_that_changes_before_a_run_begins(script, tmp_path):
    here = script("")
    script("print('other code')")
    with pytest.raises(UserError, match=r"^the code changed after the comparison began"):
        asyncio.run(runs.execute(here, tmp_path / "run", 1))
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM to ignore")
def test_a_run_that_does_not_end_is_killed_the_second_time(script, tmp_path):
    here = script("import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
                  "print('Evaluation | Step: 7', flush=True)\ntime.sleep(60)")

    async def stopped_twice():
        begun = asyncio.Event()
        run = asyncio.create_task(
            runs.execute(here, tmp_path / "run", 1, lambda steps: begun.set()))
        await begun.wait()
        run.cancel()
        assert not (await asyncio.wait([run], timeout=0.3))[0]
        run.cancel()
        assert (await asyncio.wait([run], timeout=10))[0] and run.cancelled()

    asyncio.run(stopped_twice())


def test_ray_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"pip install -r requirements-cluster\.txt"):
        cluster.on_ray().__enter__()


# ---- whole comparisons


def command(folder, *flags):
    return [sys.executable, str(ROOT / "compare.py"), *places(folder), *flags, *TINY]


def run(line):
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=900)
    return done.returncode, done.stdout.splitlines(), done.stderr.splitlines()


def results(folder):
    """Dict from "SETTING/SEED" to what is in its result.json, but for the times."""
    found = {}
    for path in folder.glob("runs/*/*/result.json"):
        result = json.loads(path.read_text())
        del result["seconds"], result["log_name"]
        found[f"{path.parent.parent.name}/{path.parent.name}"] = result
    return found


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compared")
    status, out, err = run(command(folder, "--algorithms", "td3", "sac", "--seeds", "0-1"))
    assert (status, err) == (0, []), out
    return folder, out


@pytest.mark.slow
def test_a_comparison_trains_draws_and_tabulates(compared):
    folder, out = compared
    assert out[0] == "Runs: 4, finished already: 0"
    line = r"^(TD3|SAC), seed \d: -.* of 4(; about [\d:]+ to go)?\)$"
    assert len([said for said in out if re.search(line, said)]) == 4
    saved = [folder / "image" / f"compare_Pendulum-v1{end}" for end in (".png", ".md", ".csv")]
    assert out[-3:] == [f"Saved {path}" for path in saved]
    assert saved[0].read_bytes().startswith(b"\x89PNG")
    table = saved[1].read_text()
    assert table.startswith("`python compare.py --algorithms td3 sac --seeds 0-1 --steps 600 ")
    assert "| TD3 | 2 |" in table and "| SAC | 2 |" in table and "best" not in table
    assert len(results(folder)) == 4
    for result in results(folder).values():
        assert [steps for steps, _ in result["evaluations"]] == [0, 240, 420, 600]
        assert len(result["test_returns"]) == 100
    assert len({str(result["test_returns"]) for result in results(folder).values()}) == 4
    assert len(list(folder.glob("runs/*/*/model/*/weights.npz"))) == 4
    assert not list(folder.glob("runs/*/*/model/*/training.npz"))


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals between processes")
@pytest.mark.parametrize("name", ["SIGINT", "SIGKILL"])
def test_what_is_stopped_or_killed_goes_on(compared, tmp_path, name):
    line = command(tmp_path, "--algorithms", "td3", "--workers", "1", "--seeds", "0")
    started = subprocess.Popen([*line, "--seeds", "0-1"], text=True, stderr=subprocess.PIPE)
    while not list(tmp_path.glob("runs/*/*/model/*/training.npz")):
        assert started.poll() is None
        time.sleep(0.01)
    started.send_signal(getattr(signal, name))
    _, err = started.communicate(timeout=300)
    assert not results(tmp_path)
    if name != "SIGKILL":
        assert started.returncode == 128 + getattr(signal, name)
        assert err.endswith("stopped; what is finished is kept: the same command goes on\n")
        assert not list(tmp_path.glob("runs/*/*/model/*/training.lock.txt"))  # it has ended, too
    status, out, _ = run(line)
    assert (status, out[0]) == (0, "Runs: 1, finished already: 0"), out
    (log,) = tmp_path.glob("runs/*/*/log.txt")
    assert "Resumed " in log.read_text()
    ((key, result),) = results(tmp_path).items()
    assert result == results(compared[0])[key]


CLUSTER = """
import sys
from ray.cluster_utils import Cluster
import compare
from common.comparison import runs

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
first, second = cluster.add_node(num_cpus=1), cluster.add_node(num_cpus=1)
kept, keep = [], runs.keep
def first_result(run, *rest):
    kept.append(str(run))
    if len(kept) == 1:  # the other node is in the middle of a run, or has one not fetched yet
        cluster.remove_node(second, allow_graceful=False)
        print("killed a node", flush=True)
    keep(run, *rest)
runs.keep = first_result
status = compare.main(["--ray", cluster.address, *sys.argv[1:]])
assert len(kept) == len(set(kept)), kept
cluster.shutdown()
sys.exit(status)
"""


@pytest.mark.slow
def test_a_cluster_that_loses_a_node(compared, tmp_path):
    pytest.importorskip("ray")
    flags = command(tmp_path, "--algorithms", "td3", "sac", "--seeds", "0-1")[2:]
    status, out, err = run([sys.executable, "-c", CLUSTER, *flags])
    assert status == 0, (out, err)
    assert out.count("killed a node") == 1
    assert results(tmp_path) == results(compared[0])
    assert len(list(tmp_path.glob("runs/*/*/model/*/weights.npz"))) == 4
