"""docs/check.py sees what is wrong in a document, and says where and what to change."""

import shutil
import subprocess
import sys

from common.files.names import ROOT

# What it says of a file, where a text in another (or the same) file has become another one, or
# a file is gone
CHANGES = [
    ("docs/chapter-map.md", "td3.py has no TD3.target_ini: write what it is called now",
     "td3.py", "def target_ini(", "def copied("),
    ("docs/chapter-map.md", "td3.py: __main__ has no `next_state, reward, done, _ = "
     "env.step(action)`: write `next_state, reward, done, info = env.step(action)`",
     "td3.py", "next_state, reward, done, _ = ", "next_state, reward, done, info = "),
    ("docs/chapter-map.zh-CN.md", "GAMMA of td3.py is 0.8, not 0.9: write that",
     "td3.py", "GAMMA = 0.9 ", "GAMMA = 0.8 "),
    ("docs/chapter-map.md", "the flag of KEEP is `--keep`: write that",
     "docs/chapter-map.md", "`--keep` |", "`--seed` |"),
    ("docs/chapter-map.md", "no row for CLIP_ACTIONS, [None, 'False', None]: add one",
     "docs/chapter-map.md", "| `CLIP_ACTIONS` |", "| `GAMMA` |"),
    ("docs/chapter-map.md", "no program here has --hold: write the present flag",
     "docs/chapter-map.md", "`--noise ou`", "`--hold ou`"),
    ("docs/chapter-map.md", "errata.md has no heading #e580: write #e58",
     "docs/chapter-map.md", "[E58](errata.md#e58)", "[E58](errata.md#e580)"),
    ("docs/chapter-map.md", "the link ../noise.py leads nowhere: mend or delete it",
     "docs/chapter-map.md", "(../common/noise.py)", "(../noise.py)"),
    ("docs/chapter-map.md", "td3.py has TD3.update above that of an earlier row, the page has it "
     "below: move one of the two",
     "docs/chapter-map.md", "[`td3.py: TD3.load`]", "[`td3.py: TD3.update`]"),
    ("docs/chapter-map.md", "td3.py has `random.seed(RANDOM_SEED)` above that of an earlier row",
     "docs/chapter-map.md", "`env.seed(RANDOM_SEED)`<br>", "`tf.random.set_seed(RANDOM_SEED)`<br>"),
    ("docs/chapter-map.zh-CN.md", "section '6.5.2 DDPG': only docs/chapter-map.md has the code "
     "copy_para(self.actor, self.actor_target): change one of the two",
     "docs/chapter-map.zh-CN.md", "`copy_para(self.actor, self.actor_target)`", "`copy_para(`"),
    ("docs/chapter-map.zh-CN.md", "section 'Algorithm 6.27 (TD3)': only docs/chapter-map.zh-CN.md "
     "has the row of a table",
     "docs/chapter-map.zh-CN.md", "| 16 | end if", "| 16 | | | | |\n| 16 | end if"),
    ("docs/chapter-map.zh-CN.md", "section 'From the page to the code': only docs/chapter-map.md "
     "has the link , heading 15: change one of the two",
     "docs/chapter-map.zh-CN.md", "(#654-sac)", "(#653-td3)"),
    ("docs/design.zh-CN.md", "code block 1 is not that of docs/design.md: copy it",
     "docs/design.zh-CN.md", "docs/  tests/", "tests/  docs/"),
    ("docs/design.md", "td3.py has no --seeds: write a flag that it has",
     "docs/design.md", "python td3.py --train ", "python td3.py --seeds "),
    ("docs/design.md", "there is no file common/house.py: write its present name",
     "docs/design.md", "common/flags.py", "common/house.py"),
    ("docs/speed.md", "there is no docs/speed.zh-CN.md: write it",
     "docs/speed.zh-CN.md", None, None),
    ("README.md", "this code is not in docs/environments.md: copy one",
     "README.md", "```python\n", "```python\nimport os\n"),
    ("docs/results.zh-CN.md", "compare_Pendulum-v1_tuned is not here as it is in docs/pictures: "
     "copy its table",
     "docs/results.zh-CN.md", "| TD3 | 5 | -1", "| TD3 | 5 | -2"),
    ("docs/errata.md", "E4: none of ['td3.py', 'sac.py'] has Ring.push: write its present name",
     "docs/errata.md", "`ReplayBuffer.push`: `int(", "`Ring.push`: `int("),
    ("docs/errata.zh-CN.md", "section 'E34': only docs/errata.md has the number 0.05: change one "
     "of the two",
     "docs/errata.zh-CN.md", "平均为 +0.05", "平均为 +0.06"),
    ("docs/errata.zh-CN.md", "E2: ddpg.py has no DDPG.bodies: write its present name",
     "docs/errata.zh-CN.md", "`DDPG.update_networks`，`learn`", "`DDPG.bodies`，`learn`"),
    ("docs/errata.md", "E1 has another title in its section: write the same",
     "docs/errata.md", "| [E1](#e1) | `DDPG.get_action` reads", "| [E1](#e1) | `get_action` reads"),
]


def test_each_is_said_with_its_file(tmp_path):
    """All in one run; what else it says follows from them."""
    (tmp_path / "docs").mkdir()
    linked = "common", "benchmarks", "model", "image", "tests", "compare.py", "docs/pictures"
    for part in linked:
        (tmp_path / part).symlink_to(ROOT / part)
    patterns = "*.py", "*.md", "*.txt", "docs/*.*"
    for path in [path for pattern in patterns for path in ROOT.glob(pattern)]:
        if not (tmp_path / path.relative_to(ROOT)).exists():
            shutil.copy(path, tmp_path / path.relative_to(ROOT))
    for _, _, file, before, after in CHANGES:
        if before is None:
            (tmp_path / file).unlink()
            continue
        text = (tmp_path / file).read_text(encoding="utf-8")
        assert before in text
        (tmp_path / file).write_text(text.replace(before, after), encoding="utf-8")
    done = subprocess.run([sys.executable, "docs/check.py"], cwd=tmp_path, capture_output=True,
                          encoding="utf-8", timeout=60)
    assert (done.returncode, done.stderr) == (1, "")
    lines = [line.split(":", 2) for line in done.stdout.splitlines()]
    assert all(number.isdecimal() for _, number, _ in lines)
    said = [(file, problem.strip()) for file, _, problem in lines]
    for file, expected, *_ in CHANGES:
        assert any(f == file and problem.startswith(expected) for f, problem in said), expected
