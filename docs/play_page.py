"""docs/play.html anew, of Pendulum's agents in model/pretrained: `python docs/play_page.py`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.evaluate import load_agent
from common.files.names import ROOT, weights_path
from common.files.weights import SHIPPED
from common.flags import Command
from common.pendulum import explain, page
from common.presets import PRESETS

PLAY = ROOT / "docs" / "play.html"


def settings_of(algorithm, preset):
    """The Settings of a test of shipped weights."""
    flags = ["--test", "--preset", preset, "--model-dir", SHIPPED.relative_to(ROOT).as_posix()]
    return Command(ROOT / f"{algorithm.lower()}.py").read(flags)


def shipped():
    """The agents, as page.described() has them, and the start of their first test.

    They come preset by preset: the page begins with the first and the third, DDPG and SAC.
    """
    presets = ["chapter", *dict.fromkeys(name for sets in PRESETS.values() for name in sets)]
    runs = [settings_of(algorithm, preset) for preset in presets for algorithm in PRESETS
            if weights_path(SHIPPED, algorithm, "Pendulum-v1", preset).is_file()]
    agents = [page.described(load_agent(settings), settings) for settings in runs]
    return agents, explain.start(runs[0])


if __name__ == "__main__":
    page.write(PLAY, *shipped())
