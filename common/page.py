"""--page: what was learned of Pendulum to play with, one HTML file that a browser opens alone.

    python -m common.page        docs/play.html anew, from the shipped weights

The page itself is common/page.html; here it is filled with agents.
"""

import base64
import json
from pathlib import Path

import numpy as np

from common import curve, explain, pendulum, weights
from common.files import write_atomically

TEMPLATE = Path(__file__).with_name("page.html")
PLAY = weights.SHIPPED.parent / "docs" / "play.html"
_GRID = 400, 401, 21  # angles, speeds, torques of the dynamic programming
_POLICIES, _CRITICS = ("actor", "policy_net"), ("critic", "q_net", "soft_q_net")


def path(image_dir, algorithm, env_id, preset="chapter"):
    """Where the page goes: beside the curve, `image/td3.html`."""
    return curve.path(image_dir, algorithm, env_id, preset).with_suffix(".html")


def save(agent, settings):
    """Write the page of one agent, which starts as the first test episode; prints where it is.

    `agent` is a DDPG, TD3 or SAC, `settings` what arguments.parse() returned. Raises UserError if
    the file cannot be written.
    """
    from common.networks import networks_of  # late: it takes TensorLayer

    arrays = {f"{name}/{i}": variable.numpy() for name, group in networks_of(agent).items()
              for i, variable in enumerate(group)}
    _write(path(settings.image_dir, *settings.task), [described(arrays, settings)],
           explain.start(settings))


def described(arrays, settings):
    """One agent as the page takes it: what of its settings matters there, and its networks.

    `arrays` has the keys of a file of weights ("policy_net/0"), `settings` are its run's.
    """
    names = dict.fromkeys(key.split("/")[0] for key in arrays)
    [policy] = [name for name in names if name in _POLICIES]
    critics = [name for name in names if name.rstrip("12") in _CRITICS]
    standardised = settings.constants.get("STANDARDISE_REWARDS", False)
    return {
        "algorithm": settings.algorithm,
        "environment": settings.env_id,
        "preset": settings.preset,
        "weights": weights.path(settings.model_dir, *settings.task).as_posix(),
        "gamma": settings.constants["GAMMA"],
        # Of standardised rewards, nobody knows the scale.
        "rewardScale": 1.0 if standardised else settings.constants["REWARD_SCALE"],
        "standardised": standardised,
        "soft": critics[0].startswith("soft"),  # Q counts the policy's entropy, too
        "unitActions": settings.unit_actions,
        "policy": _network(arrays, policy),
        "critics": [_network(arrays, name) for name in critics],
    }


def filled(agents, start, best):
    """The page as a text; whatever stands in the agents' names, none of it is markup.

    Args:
        agents: list of what described() returned.
        start: angle and speed.
        best: (n_angles, n_speeds), the best undiscounted return from each state of a grid.
    """
    table = {"angles": best.shape[0], "speeds": best.shape[1], "values": _base64(best)}
    data = {"agents": agents, "start": [float(number) for number in start], "best": table}
    # "<" could end the script that the data stand in; inside a JSON text it may be so written.
    text = json.dumps(data, allow_nan=False).replace("<", "\\u003c")
    return TEMPLATE.read_text("utf-8").replace("@DATA@", text)


def _write(file, agents, start):
    best = pendulum.value_functions(*_GRID)[-1][::2, ::2]
    html = filled(agents, start, best).encode()
    write_atomically(file, lambda stream: stream.write(html))
    print(f"Saved {file}", flush=True)


def _network(arrays, name):
    """Sizes of its layers, and weights and biases one after the other as base64 float32."""
    layers = [value for key, value in arrays.items() if key.split("/")[0] == name]
    if len(layers) == 10:  # SAC's policy: the head of log_std, then of the mean, which is greedy
        del layers[6:8]
    sizes = [len(layers[0]), *(len(bias) for bias in layers[1::2])]
    return {"sizes": sizes, "weights": _base64(np.concatenate([part.ravel() for part in layers]))}


def _base64(array):
    return base64.b64encode(np.ascontiguousarray(array, "<f4").tobytes()).decode()


def shipped():
    """The six agents of model/ on Pendulum, as described(), and the start of their first test."""
    from common.arguments import Command  # late: it imports this module

    agents = []
    for preset in ("chapter", "tuned"):
        for name in ("ddpg", "td3", "sac"):
            command = Command(weights.SHIPPED.parent / f"{name}.py")
            settings = command.read(["--test", "--preset", preset])
            with np.load(weights.path(weights.SHIPPED, *settings.task)) as arrays:
                agents.append(described(dict(arrays), settings))
    return agents, explain.start(settings)


if __name__ == "__main__":
    _write(PLAY, *shipped())
