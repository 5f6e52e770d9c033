"""compare.py: what is compared, the statistics, and runs that are killed, stopped or wrong."""

import contextlib
import csv
import functools
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_scripts import ROOT, environment

import compare
from common import comparison, files, pools, runs, signals
from common.errors import UserError
from common.progress import Progress

TINY = ["--steps", "240", "--max-steps", "60", "--evaluate-every", "120", "--batch-size", "16",
        "--evaluation-episodes", "2", "--explore-steps", "40", "--hidden-dim", "16",
        "--checkpoint-every", "1"]


def settings(line):
    return {one.label: one for one in compare.settings_of(*compare.parse(line.split()))[0]}


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
    one = found["TD3, gamma 0.99, soft-tau 0.1"]
    assert (one.script, one.preset, one.steps) == ("td3.py", "chapter", 5000)
    assert (one.constants["GAMMA"], one.constants["SOFT_TAU"]) == (0.99, 0.1)
    assert "--gamma 0.99" in " ".join(one.flags)


def test_presets_and_switches_can_be_compared():
    found = settings("--algorithms sac --preset chapter paper --no-auto-entropy")
    assert list(found) == ["SAC, preset chapter", "SAC, preset paper"]
    assert [one.constants["HIDDEN_DIM"] for one in found.values()] == [32, 256]
    assert not any(one.constants["AUTO_ENTROPY"] for one in found.values())


def test_seeds():
    assert compare.parse(["--seeds", "0-3", "2", "7"])[0].seeds == [0, 1, 2, 3, 7]
    assert compare.parse([])[0].seeds == list(range(10))


def test_a_folder_is_named_after_what_determines_the_run():
    def folder(line, seed=1):
        return compare.all_runs(settings(line).values(), [seed])[0].folder("r")

    one = folder("--algorithms td3")
    assert one == folder("--algorithms td3 --gamma 0.9 --render")  # 0.9 is the default
    assert one != folder("--algorithms td3 --gamma 0.8")
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


MISTAKES = {
    "--gama 0.9": "--gama is no constant of ddpg.py, td3.py, sac.py",
    "--gamma": "--gamma needs a value",
    "--algorithms sac --auto-entropy yes": "--auto-entropy takes no value",
    "--env Pendulum-v1 Hopper-v5": "--env takes one environment",
    "--gamma 7": "no setting is left",
    "--steps 0": r"--evaluate-every must be in \[1, --steps\]",
    "--steps 100": r"--evaluate-every must be in \[1, --steps\]",
    "--evaluate-every 0": r"--evaluate-every must be in \[1, --steps\]",
    "--seed 3": "--seed: comparisons take several, use --seeds",
    "--episodes 5": "--episodes: comparisons count steps, use --steps",
    "--model-dir m": "--model-dir: each run has a folder of its own in --runs-dir",
    "--train": "--train is no constant of ",
    "--record film.gif": "--record is no constant of ",
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
        ("--seeds 7 5-2", "upward ranges such as 0-9, in [0, 4294967295], got '5-2'"),
        ("--workers 0", "--workers must be a whole number in [1, 1000], got '0'"),
        ("--workers 1e9", "--workers must be a whole number in [1, 1000], got '1e9'"),
        ("--workers 1000000000", "--workers must be a whole number in [1, 1000]"),
        ("--seeds 0-400000000", "--seeds: 0-400000000 has more than 10000 seeds"),
        ("--seeds 4294967296", "in [0, 4294967295], got '4294967296'"),
        ("--seeds " + "9" * 5000, "--seeds must be"),
        ("--name ../../x", "--name must be a name for files"),
        ("--name a\\b", "--name must be a name for files"),
        ("--name=", "--name must be a name for files"),
        ("--name " + "长" * 80, "--name must be a name for files"),
        ("word", "'word' belongs to no flag"),
    ],
)
def test_mistakes_on_the_command_line_are_named(line, message, capsys):
    with pytest.raises(SystemExit) as error:
        compare.parse(line.split())
    assert error.value.code == 2
    err = capsys.readouterr().err
    assert message in err and err.startswith("compare.py: ") and err.count("\n") == 1
    assert len(err) < 200


def test_the_same_runs_are_not_two_curves(capsys):
    line = "--algorithms td3 --gamma 0.9 .9 --test-episodes 5 6"
    args, given = compare.parse(line.split())
    found, left_out = compare.settings_of(args, given)
    assert (len(found), left_out) == (1, True)
    assert "gamma .9, test-episodes 6 is left out: it gives the same" in capsys.readouterr().err


# ---- statistics


def test_iqm_is_the_mean_of_the_middle_half():
    values = np.array([100.0, 3.0, -50.0, 2.0, 4.0, 1.0, 7.0, -900.0])
    assert comparison.iqm(values) == np.mean([1, 2, 3, 4])
    assert comparison.iqm(np.array([5.0])) == 5.0


def test_the_interval_covers_the_true_iqm_as_often_as_it_says():
    generator = np.random.default_rng(1)
    values = generator.normal(3.0, 1.0, (10, 300))  # 300 experiments of 10 seeds
    low, high = comparison.band(values)
    covered = np.mean((low < 3.0) & (high > 3.0))
    assert 0.85 < covered < 0.97  # the percentile bootstrap of ten is a little too sure
    assert low.shape == (300,)


def test_below_five_seeds_the_band_is_their_range_and_called_so():
    values = np.random.default_rng(0).normal(size=(5, 20))
    for few in (1, 2, 4):
        low, high = comparison.band(values[:few])
        np.testing.assert_array_equal([low, high], [values[:few].min(0), values[:few].max(0)])
        assert comparison.band_name([few]) == "range"
    low, high = comparison.band(values)
    assert (low > values.min(0)).any() and (high < values.max(0)).any()
    assert comparison.band_name([5, 10]) == "95 % interval"
    assert comparison.band_name([2, 5]) == "95 % interval or range"
    row = {"setting": "TD3", "mean": 0, "IQM": 0, "low": 0, "high": 0, "worst_seed": 0, "area": 0,
           "seconds": 0}
    for seeds, name in ((4, "range"), (5, "95 % interval")):
        head = comparison.as_markdown([{**row, "seeds": seeds}]).splitlines()[0]
        assert head == f"| setting | seeds | mean | IQM | {name} | worst seed | area | seconds |"


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
    assert row == {"setting": "TD3", "seeds": 2, "mean": -4.0, "IQM": -4.0, "low": -6.0,
                   "high": -2.0, "worst_seed": -6.0, "area": pytest.approx(area), "seconds": 5.0}
    text = comparison.as_markdown([row], optimum=-1.25)
    assert "| TD3 | 2 | -4.0 | -4.0 | -6.0 to -2.0 | -6.0 | -9.2 | 5.0 |" in text
    assert {line.count("|") for line in text.splitlines()} == {9}
    (as_csv,) = csv.DictReader(comparison.as_csv([row]).splitlines())
    assert list(as_csv) == list(row) and as_csv["setting"] == "TD3"
    assert (float(as_csv["low"]), float(as_csv["seconds"])) == (-6.0, 5.0)


def test_picture(tmp_path):
    path = tmp_path / "a.png"
    comparison.draw(path, {"TD3": RESULTS, "SAC": RESULTS[:1]}, 100, "title", optimum=-1.0)
    first = path.read_bytes()
    comparison.draw(path, {"TD3": RESULTS, "SAC": RESULTS[:1]}, 100, "title", optimum=-1.0)
    assert path.read_bytes() == first
    assert first.startswith(b"\x89PNG")


@pytest.mark.parametrize("optimum", [None, -0.5])
def test_curves_that_end_close_to_each_other_are_told_apart(optimum, tmp_path, monkeypatch):
    def learns(returns):
        return [{"evaluations": [[0, [-1500.0]], [700, [returns]], [1000, [returns]]]}] * 2

    drawn = []
    monkeypatch.setattr(comparison.curve, "save_figure", lambda path, figure: drawn.append(figure))
    settings = {"TD3": learns(-2.0), "SAC": learns(-1.0), "short": learns(-1.0)}
    settings["short"] = [{"evaluations": [[0, [-1500.0]], [400, [-900.0]]]}]
    comparison.draw(tmp_path / "a.png", settings, 100, "Task", optimum)
    whole, end = drawn[0].axes
    assert drawn[0].get_suptitle() == "Task: IQM and range over seeds"
    assert whole.get_xlim()[0] == 0 and end.get_xlim()[0] == 750
    assert whole.get_ylim()[0] < -1500
    bottom, top = end.get_ylim()
    assert -3 < bottom < -2 and (optimum or -1) < top < 0
    assert [line.get_label() for line in whole.lines[:3]] == ["TD3 (2 seeds)", "SAC (2 seeds)",
                                                              "short (1 seed)"]


def test_curves_that_end_together(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(comparison.curve, "save_figure", lambda path, figure: drawn.append(figure))
    results = [{"evaluations": [[0, [0.0]], [100, [1000.0]], [200, [1000.0]]]}] * 2
    comparison.draw(tmp_path / "a.png", {"TD3": results}, 50, "Task")
    assert drawn[0].axes[1].get_ylim() == (999, 1001)


# ---- whole comparisons


def command(folder, *flags):
    places = ["--runs-dir", folder / "runs", "--image-dir", folder / "image"]
    return [sys.executable, "compare.py", *map(str, [*places, *flags])]


def run(folder, *flags):
    done = subprocess.run(command(folder, *flags), cwd=ROOT, env=environment(),
                          capture_output=True, text=True, timeout=600)
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
    status, out, err = run(folder, "--algorithms", "td3", "sac", "--seeds", "0-1", *TINY)
    assert (status, err) == (0, [])
    return folder, out


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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


SIGNALS = [("SIGINT", 130, 2), ("SIGTERM", 143, 1), ("SIGHUP", 129, 1)]


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals between processes")
@pytest.mark.parametrize(("name", "status", "times"), SIGNALS)
def test_a_signal_leaves_what_the_same_command_goes_on_with(compared, tmp_path, name, status,
                                                           times):
    flags = ["--algorithms", "td3", "--seeds", "0-1", "--workers", "1", *TINY]
    number = getattr(signal, name)
    before = signal.signal(number, signal.SIG_DFL)  # nohup ignores SIGHUP, for children too
    process = subprocess.Popen(command(tmp_path, *flags), cwd=ROOT, env=environment(), text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    signal.signal(number, before)
    for line in process.stdout:
        if line.startswith("TD3, seed 0: "):
            break
    time.sleep(1)
    for _ in range(times):
        process.send_signal(number)
        time.sleep(0.1)
    _, err = process.communicate(timeout=60)
    assert process.returncode == status
    assert err == "compare.py: stopped; what is finished is kept: the same command goes on\n"
    assert len(results(tmp_path)) == 1
    if name == "SIGINT":
        status, out, _ = run(tmp_path, *flags)
        assert (status, out[0]) == (0, "Runs: 2, finished already: 1")
        for key, result in results(tmp_path).items():
            assert result == results(compared[0])[key]


def table(folder):
    return (folder / "image" / "compare_Pendulum-v1.md").read_text()


@pytest.mark.slow
def test_two_comparisons_at_once_share_the_runs(compared, tmp_path):
    flags = ["--algorithms", "td3", "--seeds", "0-2", "--workers", "2", *TINY]
    both = []
    for name in "ab":
        line = [*command(tmp_path, *flags), "--image-dir", str(tmp_path / name / "image")]
        both.append(subprocess.Popen(line, cwd=ROOT, env=environment(), text=True,
                                     stdout=subprocess.PIPE, stderr=subprocess.PIPE))
    said = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert [err for _, err in said] == ["", ""]
    assert "Another comparison is working on " in said[0][0] + said[1][0]
    assert "tried once more" not in said[0][0] + said[1][0]
    logs = [path.read_text() for path in tmp_path.glob("runs/*/*/log.txt")]
    assert [log.count("Compiling the update") for log in logs] == [1, 1, 1]
    assert table(tmp_path / "a") == table(tmp_path / "b")
    for key in results(tmp_path).keys() & results(compared[0]).keys():
        assert results(tmp_path)[key] == results(compared[0])[key]


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has no kill -9")
def test_kill_9_and_the_same_command_again(compared, tmp_path):
    flags = ["--algorithms", "td3", "--seeds", "0", *TINY]
    process = subprocess.Popen(command(tmp_path, *flags), cwd=ROOT, env=environment(),
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not list(tmp_path.glob("runs/*/*/model/*/training.npz")):
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    status, out, err = run(tmp_path, *flags)
    assert (status, err) == (0, []), out
    ((key, result),) = results(tmp_path).items()
    assert result == results(compared[0])[key]


@pytest.mark.slow
def test_what_other_code_has_given_is_not_used(compared, tmp_path):
    for name in ("compare.py", "td3.py", "common", "benchmarks"):
        path = ROOT / name
        (shutil.copytree if path.is_dir() else shutil.copy)(path, tmp_path / name)

    def at(folder):
        line = [*command(compared[0], "--algorithms", "td3", "--seeds", "0", *TINY),
                "--image-dir", str(folder / "image")]
        done = subprocess.run(line, cwd=folder, env=environment(), capture_output=True, text=True,
                              timeout=300)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout.splitlines()

    script, before = tmp_path / "td3.py", len(results(compared[0]))
    script.write_text(script.read_text().replace("# Training the Q functions", "# The Q functions"))
    assert at(tmp_path)[0] == "Runs: 1, finished already: 1"
    line = "target_q_value = reward + (1 - done) * gamma * target_q_min"
    assert line in script.read_text()
    script.write_text(script.read_text().replace(line, line + " * 0.5"))
    out = at(tmp_path)
    assert out[0] == "Runs: 1, finished already: 0"
    assert out[1] == ("1 of the others have finished with other code or packages; these results "
                      f"stay in {compared[0] / 'runs'} and are not used.")
    assert len(results(compared[0])) == before + 1
    (new,) = [folder for folder in compared[0].glob("runs/*") if len(list(folder.iterdir())) == 1
              and folder.name.startswith("td3")]
    shutil.rmtree(new)


TASK = """
import gymnasium
from gymnasium.envs.classic_control.pendulum import PendulumEnv

gymnasium.register("Task-v0", entry_point=PendulumEnv, max_episode_steps=60)
"""


@pytest.mark.slow
def test_from_another_folder_with_an_environment_of_ones_own(tmp_path):
    (tmp_path / "mine.py").write_text(TASK)
    flags = ["--algorithms", "td3", "--seeds", "0", "--env", "mine:Task-v0", *TINY]
    line = [sys.executable, str(ROOT / "compare.py"), *flags]
    for finished in (0, 1):
        done = subprocess.run(line, cwd=tmp_path, env=environment(), capture_output=True, text=True,
                              timeout=300)
        assert (done.returncode, done.stderr) == (0, ""), done.stdout
        assert done.stdout.splitlines()[0] == f"Runs: 1, finished already: {finished}"
    assert len(list(tmp_path.glob("runs/compare/*/seed0/result.json"))) == 1
    assert (tmp_path / "image" / "compare_mine-Task-v0.png").exists()


@pytest.mark.slow
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


# ---- files and outputs


@functools.cache
def the_run():
    return compare.all_runs(settings(" ".join(["--algorithms", "td3", *TINY])).values(), [0])[0]


def a_run(**changed):
    return replace(the_run(), **changed)


def good_result():
    done = Progress([-5.0], [-5.0], evaluations=[[0, [-3.0, -1.0]], [240, [-1.0, 0]]],
                    test_returns=[-1.0, -2.0], steps=240, seconds=1.0, finished=True)
    return {"constants": a_run().constants, **done.as_dict()}


DAMAGE = {  # keep() writes whole files, so this is other programs' or a disk's
    "empty": b"",
    "half": b'{"constants": {"ALG',
    "not UTF-8": b"\xff\xfe\x00\x80",
    "another program's": b"[1, 2, 3]",
    "deep": b"[" * 100_000,
    "no constants": {"constants": None},
    "other constants": {"constants": {"ALG_NAME": "TD3"}},
    "no test": {"test_returns": []},
    "no evaluation": {"evaluations": []},
    "fewer steps": {"evaluations": [[0, [-1.0]], [120, [-1.0]]]},
    "a number for evaluations": {"evaluations": 7},
    "a text for seconds": {"seconds": "1"},
    **{f"without {name}": {name: ...}
       for name in ("constants", "evaluations", "test_returns", "seconds")},
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_result_is_checked(damage, tmp_path):
    here = a_run()
    assert runs.result(here, tmp_path) is None
    runs.keep(here, tmp_path, good_result())
    assert runs.result(here, tmp_path) == good_result()
    content = DAMAGE[damage]
    if isinstance(content, dict):
        content = good_result() | content
        content = {name: value for name, value in content.items() if value is not ...}
        content = json.dumps(content).encode()
    path = here.folder(tmp_path) / "result.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=damage.partition("without ")[2] or None) as error:
        runs.result(here, tmp_path)
    assert str(error.value).startswith(f"{path} is damaged or not a result (")


def test_a_damaged_result_is_made_anew(tmp_path, monkeypatch, capsys):
    path = a_run().folder(tmp_path / "runs") / "result.json"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"\xff")
    monkeypatch.setattr(pools, "local", lambda workers: contextlib.nullcontext((1, Answers())))
    status = compare.main([*map(str, command(tmp_path)[2:]), "--algorithms", "td3", "--seeds", "0",
                           *TINY])
    out, err = capsys.readouterr()
    assert status == 0 and "Runs: 1, finished already: 0\n" in out
    assert err.startswith(f"compare.py: {path} is damaged") and err.count("\n") == 1
    assert json.loads(path.read_text()) == good_result()


@pytest.mark.parametrize("flag", ["--runs-dir", "--image-dir"])
def test_a_folder_that_is_a_file(flag, tmp_path, monkeypatch):
    (tmp_path / "FILE").write_text("kept")
    monkeypatch.setattr(pools, "local", None)  # nothing is started
    for path in (tmp_path / "FILE", tmp_path / "FILE" / "below"):
        with pytest.raises(UserError, match=f"^{flag} .*FILE.*: cannot be written "):
            compare.main([*command(tmp_path)[2:], flag, str(path), "--seeds", "0", *TINY])
    assert (tmp_path / "FILE").read_text() == "kept"


def quick(tmp_path, redirection):
    """A comparison that only reads a finished run, its output as a shell's redirection says."""
    runs.keep(a_run(), tmp_path / "runs", good_result())
    line = shlex.join(command(tmp_path, "--algorithms", "td3", "--seeds", "0", *TINY))
    return subprocess.run(["bash", "-c", f"{line} {redirection}; exit ${{PIPESTATUS[0]}}"],
                          cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=60)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has it")
@pytest.mark.parametrize(("redirection", "message"), [
    ("> /dev/full", "compare.py: the output cannot be written (No space left on device); "
     "the run has stopped: send the output where it can be written\n"),
    ("> /dev/full 2>&1", ""),
    ("| true", "compare.py: the output was closed; "
     "the run has stopped: send the output where it can be written\n"),
])
def test_an_output_that_nobody_can_read(tmp_path, redirection, message):
    done = quick(tmp_path, redirection)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", message)
    assert runs.result(a_run(), tmp_path / "runs") == good_result()


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="a POSIX shell")
def test_a_closed_stderr_and_letters_that_the_output_has_not(tmp_path):
    for nowhere in ("2>&-", ">&-", ">&- 2>&-"):
        assert quick(tmp_path, nowhere).returncode == 0
    done = quick(tmp_path / "图", "| cat")
    assert (done.returncode, done.stderr) == (0, "")
    line = command(tmp_path / "图", "--algorithms", "td3", "--seeds", "0", *TINY)
    done = subprocess.run(line, cwd=ROOT, env={**environment(), "PYTHONIOENCODING": "ascii"},
                          capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "") and "\\u56fe" in done.stdout


# ---- who executes a run, and how often


class Answers:
    """Stands for execute(): a dict says what each seed gives or raises, one after the other."""

    def __init__(self, answers=None):
        self.answers, self.started = answers or {}, []

    def __call__(self, run, folder, progress):
        self.started.append(run.seed)
        answer = self.answers.get(run.seed, [good_result()]).pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def test_only_what_no_script_has_refused_is_tried_once_more(tmp_path):
    found = [replace(a_run(), seed=seed) for seed in range(3)]
    execute = Answers({0: [runs.Refused("td3.py: no")], 1: [UserError("killed"), OSError()],
                       2: [UserError("killed"), good_result()]})
    events = [(run.seed, what) for run, what, _ in pools.execute_all(found, tmp_path, 2, execute)]
    assert sorted(events) == [(0, "failed"), (1, "failed"), (1, "retry"), (2, "result"),
                              (2, "retry")]
    assert len(list(tmp_path.glob("*/*/result.json"))) == 1


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize("what", ["another comparison", "a training that a killed one has left"])
def test_a_run_of_others_is_waited_for(what, tmp_path, finished, monkeypatch):
    monkeypatch.setattr(pools, "_AGAIN", 0.1)
    here, execute = a_run(), Answers()
    folder = here.folder(tmp_path)
    other = files.locked(folder, name="run.lock") if what == "another comparison" else files.locked(
        here.state(folder).parent)
    events = pools.execute_all([here], tmp_path, 2, execute)
    with other:  # released as when its process dies
        assert next(events) == (here, "held", None)
        if finished:
            runs.keep(here, tmp_path, good_result())
    assert [event for event in events if event[1] != "held"] == [(here, "result", good_result())]
    assert len(execute.started) == (not finished)


def test_who_is_stopped_ends_the_runs_first(tmp_path):
    here, ended = a_run(), []

    def execute(run, folder, progress):
        try:
            while True:
                progress(7)
                time.sleep(0.01)
        finally:
            ended.append(run)

    events = pools.execute_all([here, replace(here, seed=1)], tmp_path, 1, execute)
    assert next(events) == (here, "steps", 7)
    signals._handle(signal.SIGTERM, None)
    with pytest.raises(signals.Stopped) as stopped:
        list(events)
    assert (stopped.value.code, ended) == (128 + signal.SIGTERM, [here])


def test_a_run_whose_folder_cannot_be_made_fails_alone(tmp_path):
    here = a_run()
    here.folder(tmp_path).parent.mkdir()
    here.folder(tmp_path).write_text("a file")
    ((_, what, why),) = pools.execute_all([here], tmp_path, 1, Answers())
    assert what == "failed" and "seed0" in why


@pytest.mark.slow
def test_code_that_changes_before_a_run_starts(tmp_path):
    here = a_run(provenance={**a_run().provenance, "code": "as it was"})
    with pytest.raises(runs.Refused, match="the code changed after the comparison began"):
        runs.execute(here, tmp_path, threads=1)
    assert not list(tmp_path.glob("model/*/training.npz"))


# ---- a cluster


def test_ray_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"pip install -r requirements-cluster\.txt"):
        pools.on_ray().__enter__()


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
    flags = ["--algorithms", "td3", "sac", "--seeds", "0-1", *TINY]
    line = [sys.executable, "-c", CLUSTER, *command(tmp_path, *flags)[2:]]
    done = subprocess.run(line, cwd=ROOT, env=environment(), capture_output=True, text=True,
                          timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("killed a node") == 1
    assert results(tmp_path) == {k: v for k, v in results(compared[0]).items() if "seed2" not in k}
    assert len(list(tmp_path.glob("runs/*/*/model/*/weights.npz"))) == 4
