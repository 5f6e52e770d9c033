"""docs/check.py sees what is wrong in a document, and says where and what to change."""

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# What it says of a file, where a text in another (or the same) file has become another one, or
# a file is gone
CHANGES = [
    ("docs/chapter-map.md", "td3.py has no TD3.target_ini: write what it is called now",
     "td3.py", "def target_ini(", "def copied("),
    ("docs/chapter-map.md", "td3.py: __main__ has no `next_state, reward, done, info = "
     "env.step(action)`: write `next_state, reward, done, _ = env.step(action)`",
     "td3.py", "next_state, reward, done, info = ", "next_state, reward, done, _ = "),
    ("docs/chapter-map.zh-CN.md", "GAMMA of td3.py is 0.8, not 0.9: write that",
     "td3.py", "GAMMA = 0.9 ", "GAMMA = 0.8 "),
    ("docs/chapter-map.md", "the flag of KEEP is `--keep`: write that",
     "docs/chapter-map.md", "`--keep` |", "`--seed` |"),
    ("docs/chapter-map.md", "no program here has --hold: write the present flag",
     "docs/chapter-map.md", "`--noise ou`", "`--hold ou`"),
    ("docs/chapter-map.md", "errata.md has no heading #e580: write #e58",
     "docs/chapter-map.md", "[E58](errata.md#e58)", "[E58](errata.md#e580)"),
    ("docs/chapter-map.md", "the link ../noise.py leads nowhere: mend or delete it",
     "docs/chapter-map.md", "(../common/noise.py)", "(../noise.py)"),
    ("docs/chapter-map.zh-CN.md", "section '6.5.2 DDPG': only docs/chapter-map.md has the code "
     "copy_para(self.actor, self.actor_target): change one of the two",
     "docs/chapter-map.zh-CN.md", "`copy_para(self.actor, self.actor_target)`", "`copy_para(`"),
    ("docs/results.zh-CN.md", "section 'Hopper': only docs/results.zh-CN.md has the row of a table",
     "docs/results.zh-CN.md", "| 步数 | 50,048 |", "| |\n| 步数 | 50,048 |"),
    ("docs/compare.zh-CN.md", "section 'What a large comparison would cost': only docs/compare.md "
     "has the link speed.md, heading 6: change one of the two",
     "docs/compare.zh-CN.md", "(speed.zh-CN.md#几个训练同时进行)", "(speed.zh-CN.md#gpu)"),
    ("docs/library.zh-CN.md", "code block 1 is not that of docs/library.md: copy it",
     "docs/library.zh-CN.md", "other.load(path)", "other.save(path)"),
    ("docs/speed.md", "there is no docs/speed.zh-CN.md: write it",
     "docs/speed.zh-CN.md", None, None),
    ("docs/chapter-map.md", "td3.py has TD3.update above that of an earlier row, the page has it "
     "below: move one of the two",
     "docs/chapter-map.md", "[`td3.py: TD3.load`]", "[`td3.py: TD3.update`]"),
    ("README.zh-CN.md", "section 'Results': only README.md has the number -162.9: change one of "
     "the two",
     "README.zh-CN.md", "-162.9", "-162.8"),
    ("README.md", "ddpg.py has no --policy-loss: write a flag that it has",
     "README.md", "python sac.py --train --test ", "python ddpg.py --policy-loss min "),
    ("README.md", "there is no file benchmarks/watch.py: write its present name",
     "README.md", "benchmarks/watching.py", "benchmarks/watch.py"),
    ("README.zh-CN.md", "--help has in the group 'networks': --hidden-dim --weight-init: write "
     "them so",
     "README.zh-CN.md", "；`--weight-init`：权重", "；`--weight`：权重"),
    ("README.md", "--help has the group 'training' here, not ['exploration']: write that",
     "README.md", "| training | how long", "| exploration | how long"),
    ("docs/errata.md", "E4: none of ['common/replay_buffer.py'] has Ring.push: write its present "
     "name",
     "docs/errata.md", "`ReplayBuffer.push`: `(self", "`Ring.push`: `(self"),
    ("docs/errata.zh-CN.md", "section 'E34': only docs/errata.md has the number 0.05: change one "
     "of the two",
     "docs/errata.zh-CN.md", "平均为 +0.05", "平均为 +0.06"),
    ("docs/errata.zh-CN.md", "E2: ddpg.py has no DDPG._from: write its present name",
     "docs/errata.zh-CN.md", "`DDPG._update_from`（即", "`DDPG._from`（即"),
    ("docs/errata.md", "E1 has another title in its section: write the same",
     "docs/errata.md", "| [E1](#e1) | `DDPG.get_action` reads", "| [E1](#e1) | `get_action` reads"),
]


def test_each_is_said_with_its_file(tmp_path):
    """All in one run; what else it says follows from them."""
    for part in ("common", "benchmarks", "model", "image", "tests", "compare.py"):
        (tmp_path / part).symlink_to(ROOT / part)
    (tmp_path / "docs").mkdir()
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
