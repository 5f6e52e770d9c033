"""docs/play.html anew, from the six agents of model/pretrained: `python docs/play_page.py`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.evaluate import load_agent
from common.files.names import ROOT
from common.files.weights import SHIPPED
from common.flags import Command
from common.pendulum import explain, page

PLAY = ROOT / "docs" / "play.html"


def settings_of(script, preset):
    """The Settings of a test of shipped weights."""
    flags = ["--test", "--preset", preset, "--model-dir", SHIPPED.relative_to(ROOT).as_posix()]
    return Command(ROOT / f"{script}.py").read(flags)


def shipped():
    """The six agents, as page.described() has them, and the start of their first test."""
    runs = [settings_of(script, preset)
            for preset in ("chapter", "tuned") for script in ("ddpg", "td3", "sac")]
    agents = [page.described(load_agent(settings), settings) for settings in runs]
    return agents, explain.start(runs[0])


if __name__ == "__main__":
    page.write(PLAY, *shipped())
