"""--page: what was learned of Pendulum to play with, one HTML file that a browser opens alone.

The page itself is page.html; here it is filled with agents.
"""

import base64
import json
from pathlib import Path

import numpy as np

from common.errors import UserError, one_line
from common.files.names import picture_path, weights_path
from common.files.whole import write_atomically
from common.pendulum import explain, optimum

TEMPLATE = Path(__file__).with_name("page.html")
_GRID = 400, 401, 21  # angles, speeds, torques of the dynamic programming


def save(agent, settings):
    """Write the page of one agent beside the curve, as image/td3.html; prints where it is.

    It starts as the first test episode does.

    Args:
        agent: has `q_unit`, what Q sums, and layers(): of the greedy policy and of each Q, lists
            of TensorLayer's dense layers, the policy's with tanh at the end.
        settings: what flags.parse() returned.

    Raises:
        UserError: the file cannot be written, or a hidden layer has another activation than relu.
    """
    path = picture_path(settings.image_dir, *settings.task).with_suffix(".html")
    write(path, [described(agent, settings)], explain.start(settings))


def described(agent, settings):
    """One agent as the page takes it: what of its settings matters there, and its networks."""
    policy, critics = agent.layers()
    standardised = settings.constants.get("STANDARDISE_REWARDS", False)
    return {
        "algorithm": settings.algorithm,
        "environment": settings.env_id,
        "preset": settings.preset,
        "weights": one_line(weights_path(settings.model_dir, *settings.task)).replace("\\", "/"),
        "gamma": settings.constants["GAMMA"],
        # Of standardised rewards, nobody knows the scale.
        "rewardScale": 1.0 if standardised else settings.constants["REWARD_SCALE"],
        "standardised": standardised,
        "soft": agent.q_unit != "rewards",
        "unitActions": settings.unit_actions,
        "policy": _network(policy),
        "critics": [_network(critic) for critic in critics],
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


def write(file, agents, start):
    """Write the page of some agents, each as described(); prints where it is."""
    best = optimum.value_functions(*_GRID)[-1][::2, ::2]
    html = filled(agents, start, best).encode()
    write_atomically(file, lambda stream: stream.write(html))
    print(f"Saved {one_line(file)}", flush=True)


def _network(layers):
    """Sizes of its layers, and weights and biases one after the other as base64 float32."""
    for layer in layers[:-1]:
        if getattr(layer.act, "__name__", "") != "relu":
            raise UserError(f"--page computes with relu in hidden layers, which {layer.name} has "
                            "not: --record and --explain take any")
    parts = [part.numpy() for layer in layers for part in (layer.W, layer.b)]
    sizes = [len(parts[0]), *(len(bias) for bias in parts[1::2])]
    return {"sizes": sizes, "weights": _base64(np.concatenate([part.ravel() for part in parts]))}


def _base64(array):
    return base64.b64encode(np.ascontiguousarray(array, "<f4").tobytes()).decode()
