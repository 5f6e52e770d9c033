"""compare.py: what is compared, the statistics, and runs that are killed, stopped or wrong."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from test_scripts import ROOT, environment

import compare
from common import comparison, runs
from common.errors import UserError

TINY = ["--steps", "240", "--max-steps", "60", "--evaluate-every", "120", "--batch-size", "16",
        "--evaluation-episodes", "2", "--explore-steps", "40", "--hidden-dim", "16",
        "--checkpoint-every", "1"]


def settings(line):
    args, given = compare.parse(line.split())
    return compare.settings_of(args, given)[0]


def test_every_combination_is_a_curve():
    found = settings("--algorithms ddpg td3 --gamma 0.9 0.99 --soft-tau 0.01 0.1 --steps 5e3")
    assert list(found) == [
        "DDPG, gamma 0.9",  # which has no --soft-tau
        "DDPG, gamma 0.99",
        "TD3, gamma 0.9, soft-tau 0.01",
        "TD3, gamma 0.9, soft-tau 0.1",
        "TD3, gamma 0.99, soft-tau 0.01",
        "TD3, gamma 0.99, soft-tau 0.1",
    ]
    script, flags, preset, constants = found["TD3, gamma 0.99, soft-tau 0.1"]
    assert (script, preset) == ("td3.py", "chapter")
    assert (constants["GAMMA"], constants["SOFT_TAU"]) == (0.99, 0.1)
    assert constants["TRAIN_STEPS"] == 5000
    assert "--gamma 0.99" in " ".join(flags)


def test_presets_and_switches_can_be_compared():
    found = settings("--algorithms sac --preset chapter paper --no-auto-entropy")
    assert list(found) == ["SAC, preset chapter", "SAC, preset paper"]
    assert [c["HIDDEN_DIM"] for *_, c in found.values()] == [32, 256]
    assert not any(c["AUTO_ENTROPY"] for *_, c in found.values())


def test_seeds():
    assert compare.parse(["--seeds", "0-3", "2", "7"])[0].seeds == [0, 1, 2, 3, 7]
    assert compare.parse([])[0].seeds == list(range(10))


def test_a_folder_is_named_after_what_determines_the_run():
    def folder(line, seed=1):
        args, given = compare.parse(line.split())
        return compare.all_runs(compare.settings_of(args, given)[0], [seed])[0].folder("r")

    one = folder("--algorithms td3")
    assert one == folder("--algorithms td3 --gamma 0.9 --render")  # 0.9 is the default
    assert one != folder("--algorithms td3 --gamma 0.8")
    assert re.fullmatch(r"r/td3_Pendulum-v1_[0-9a-f]{10}/seed1", one.as_posix())
    assert folder("--algorithms td3", 2) == one.parent / "seed2"


def test_the_command_is_told_without_the_places():
    line = "--seeds 3 4 5 --algorithms sac --gamma 0.9 0.99 --runs-dir x --no-auto-entropy"
    found = compare.command(*compare.parse(line.split()))
    assert found == (
        "python compare.py --algorithms sac --seeds 3-5 --gamma 0.9 0.99 --no-auto-entropy"
    )


MISTAKES = {
    "--gama 0.9": "--gama is no flag",
    "--gamma": "--gamma needs a value",
    "--algorithms sac --auto-entropy yes": "--auto-entropy takes no value",
    "--env Pendulum-v1 Hopper-v5": "--env takes one environment",
    "--gamma 7": "no setting is left",
    "--steps 0": "--steps and --evaluate-every must be larger than 0",
    "--seed 3": "--seed is no flag",
}


@pytest.mark.parametrize("line", MISTAKES)
def test_mistakes_are_named(line):
    with pytest.raises(UserError, match=MISTAKES[line]):
        settings(line)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--algorithms ppo", "ppo"),
        ("--seeds a", "--seeds must be"),
        ("--seeds 5-2", "--seeds has no seed in it"),
        ("--workers 0", "--workers must be"),
    ],
)
def test_mistakes_on_the_command_line_are_named(line, message, capsys):
    with pytest.raises(SystemExit) as error:
        compare.parse(line.split())
    assert error.value.code == 2
    err = capsys.readouterr().err
    assert message in err and err.startswith("compare.py: ") and err.count("\n") == 1


# ---- statistics


def test_iqm_is_the_mean_of_the_middle_half():
    values = np.array([100.0, 3.0, -50.0, 2.0, 4.0, 1.0, 7.0, -900.0])
    assert comparison.iqm(values) == np.mean([1, 2, 3, 4])
    assert comparison.iqm(np.array([5.0])) == 5.0


def test_the_interval_covers_the_true_iqm_as_often_as_it_says():
    generator = np.random.default_rng(1)
    values = generator.normal(3.0, 1.0, (10, 300))  # 300 experiments of 10 seeds
    low, high = comparison.interval(values)
    covered = np.mean((low < 3.0) & (high > 3.0))
    assert 0.85 < covered < 0.97  # the percentile bootstrap of ten is a little too sure
    assert low.shape == (300,)


def test_one_seed_is_its_own_interval():
    low, high = comparison.interval([[1.0, 2.0]])
    np.testing.assert_array_equal([low, high], [[1.0, 2.0], [1.0, 2.0]])


RESULTS = [
    {"evaluations": [[0, [-10.0, -20.0]], [110, [-5.0, -5.0]], [200, [0.0, 0.0]]],
     "test_returns": [-1.0, -3.0], "seconds": 4.0},
    {"evaluations": [[0, [-15.0]], [90, [-15.0]], [210, [-3.0]]],
     "test_returns": [-6.0, -6.0], "seconds": 6.0},
]


def test_curves_are_on_common_steps():
    steps, returns = comparison.curves(RESULTS, 100)
    np.testing.assert_array_equal(steps, [0, 100, 200])
    np.testing.assert_allclose(returns, [[-15, -15 + 10 * 100 / 110, 0], [-15, -14, -4]])


def test_table():
    (row,) = comparison.table({"TD3": RESULTS}, 100)
    area = np.mean([(-15 + 2 * (-15 + 1000 / 110) + 0) / 4, (-15 - 28 - 4) / 4])
    assert row[:4] == ["TD3", 2, -4.0, -4.0]
    assert row[4] == (-6.0, -2.0)
    assert row[5:] == [-6.0, pytest.approx(area), 5.0]
    text = comparison.as_markdown([row], optimum=-1.25)
    assert "| TD3 | 2 | -4.0 | -4.0 | -6.0 to -2.0 | -6.0 | -9.2 | 5.0 |" in text
    assert {line.count("|") for line in text.splitlines()} == {9}
    (as_csv,) = csv.DictReader(comparison.as_csv([row]).splitlines())
    assert as_csv["setting"] == "TD3" and float(as_csv["low"]) == -6.0
    assert float(as_csv["seconds"]) == 5.0


def test_picture(tmp_path):
    path = tmp_path / "a.png"
    comparison.draw(path, {"TD3": RESULTS, "SAC": RESULTS[:1]}, 100, "title", optimum=-1.0)
    first = path.read_bytes()
    comparison.draw(path, {"TD3": RESULTS, "SAC": RESULTS[:1]}, 100, "title", optimum=-1.0)
    assert path.read_bytes() == first
    assert first.startswith(b"\x89PNG")


# ---- whole comparisons


def command(folder, *flags):
    places = ["--runs-dir", folder / "runs", "--image-dir", folder / "image"]
    return [sys.executable, "compare.py", *map(str, [*places, *flags])]


def run(folder, *flags):
    done = subprocess.run(command(folder, *flags), cwd=ROOT, env=environment(),
                          capture_output=True, text=True, timeout=600)
    return done.returncode, done.stdout.splitlines(), done.stderr.splitlines()


def results(folder):
    """Dict from "SETTING/SEED" to what is in its result.json, but for the time."""
    found = {}
    for path in folder.glob("runs/*/*/result.json"):
        result = json.loads(path.read_text())
        del result["seconds"]
        found[f"{path.parent.parent.name}/{path.parent.name}"] = result
    return found


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compared")
    status, out, err = run(folder, "--algorithms", "td3", "sac", "--seeds", "0-1", *TINY)
    assert (status, err) == (0, [])
    return folder, out


def test_a_comparison_trains_draws_and_tabulates(compared):
    folder, out = compared
    assert out[0] == "Runs: 4, finished already: 0"
    assert len([line for line in out if re.search(r"^(TD3|SAC), seed \d: -.* of 4\)$", line)]) == 4
    image = folder / "image"
    saved = [f"Saved {image / 'compare_Pendulum-v1'}{end}" for end in (".png", ".md", ".csv")]
    assert out[-3:] == saved
    assert (image / "compare_Pendulum-v1.png").read_bytes().startswith(b"\x89PNG")
    table = (image / "compare_Pendulum-v1.md").read_text()
    assert table.startswith("`python compare.py --algorithms td3 sac --seeds 0-1 --steps 240 ")
    assert "| TD3 | 2 |" in table and "| SAC | 2 |" in table and "| best possible |" in table
    assert len(results(folder)) == 4
    for result in results(folder).values():
        assert [steps for steps, _ in result["evaluations"]] == [0, 120, 240]
        assert len(result["test_returns"]) == 100
    assert len(list(folder.glob("runs/*/*/model/*/weights.npz"))) == 4
    assert not list(folder.glob("runs/*/*/model/*/training.npz"))


def test_what_is_finished_is_not_repeated(compared):
    folder, _ = compared
    before = {path: path.stat().st_mtime_ns for path in folder.glob("runs/*/*/result.json")}
    status, out, _ = run(folder, "--algorithms", "td3", "--seeds", "1-2", *TINY)
    assert status == 0
    assert out[0] == "Runs: 2, finished already: 1"
    for path, time_written in before.items():
        assert path.stat().st_mtime_ns == time_written
    assert len(results(folder)) == 5


def children(pid):
    """Process ids of the trainings that a comparison has started."""
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


@pytest.mark.skipif(not Path("/proc").exists(), reason="finds processes as Linux lists them")
def test_a_killed_run_is_reported_and_tried_once_more(compared, tmp_path):
    flags = ["--algorithms", "td3", "--seeds", "0", *TINY]
    with subprocess.Popen(command(tmp_path, *flags), cwd=ROOT, env=environment(), text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        while not list(tmp_path.glob("runs/*/*/model/*/training.npz")):
            assert process.poll() is None
            time.sleep(0.01)
        os.kill(children(process.pid)[0], signal.SIGKILL)
        out, err = process.communicate(timeout=300)
    assert (process.returncode, err) == (0, "")
    assert re.search(r"^TD3, seed 0: killed by signal 9: .*; tried once more$", out, re.MULTILINE)
    (log,) = tmp_path.glob("runs/*/*/log.txt")
    assert "Resumed " in log.read_text()
    ((key, result),) = results(tmp_path).items()
    assert result == results(compared[0])[key]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals between processes")
def test_ctrl_c_leaves_what_the_same_command_goes_on_with(compared, tmp_path):
    flags = ["--algorithms", "td3", "--seeds", "0-1", "--workers", "1", *TINY]
    process = subprocess.Popen(command(tmp_path, *flags), cwd=ROOT, env=environment(), text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    for line in process.stdout:
        if line.startswith("TD3, seed 0: "):
            break
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert err.startswith("compare.py: stopped; what is finished is in ") and err.count("\n") == 1
    assert len(results(tmp_path)) == 1
    status, out, _ = run(tmp_path, *flags)
    assert (status, out[0]) == (0, "Runs: 2, finished already: 1")
    for key, result in results(tmp_path).items():
        assert result == results(compared[0])[key]


def test_a_bad_setting_does_not_end_the_others(tmp_path):
    flags = ["--algorithms", "td3", "--seeds", "0", *TINY, "--q-lr", "3e-4", "1e38"]
    status, out, err = run(tmp_path, *flags, "--gamma", "0.9", "1.5")
    assert status == 1
    assert len([line for line in err if "1.5 is left out: td3.py: --gamma must be" in line]) == 2
    assert "no longer finite" in err[-1] and "q-lr 1e38" in err[-1]
    assert "tried once more" not in "".join(out)  # the script has said what is wrong
    assert len(results(tmp_path)) == 1
    # named after what varies, so that it does not replace the plain comparison
    assert (tmp_path / "image" / "compare_Pendulum-v1_q-lr_gamma.png").exists()


# ---- a cluster


def test_ray_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"pip install -r requirements-cluster\.txt"):
        runs.OnRay()


CLUSTER = """
import sys, threading, time
from ray.cluster_utils import Cluster
import compare
from common import runs

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
first, second = cluster.add_node(num_cpus=1), cluster.add_node(num_cpus=1)
kept = []
keep = runs.keep
def first_result(run, *rest):
    if not kept:  # the other node is in the middle of a run, or has one that is not fetched yet
        cluster.remove_node(second, allow_graceful=False)
        print("killed a node", flush=True)
    kept.append(str(run))
    keep(run, *rest)
runs.keep = first_result
status = compare.main(["--ray", cluster.address, *sys.argv[1:]])
assert len(kept) == len(set(kept)), kept
cluster.shutdown()
sys.exit(status)
"""


def test_a_cluster_that_loses_a_node(compared, tmp_path):
    pytest.importorskip("ray")
    flags = ["--algorithms", "td3", "sac", "--seeds", "0-1", *TINY]
    line = [sys.executable, "-c", CLUSTER, *command(tmp_path, *flags)[2:]]
    done = subprocess.run(line, cwd=ROOT, env=environment(), capture_output=True, text=True,
                          timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("killed a node") == 1
    assert results(tmp_path) == {k: v for k, v in results(compared[0]).items() if "seed2" not in k}
    assert len(list(tmp_path.glob("runs/*/*/model/*/weights.npz"))) == 4
