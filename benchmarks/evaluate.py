"""How good are the saved weights? Greedy returns over fixed start states.

    python benchmarks/evaluate.py                     the three agents of Pendulum
    python benchmarks/evaluate.py --algorithms td3 --preset paper --model-dir mine

Each agent plays one greedy episode from each of the start states that
`env.reset(seed=0)` to `env.reset(seed=99)` give, and the table shows mean and
worst return; on Pendulum also the best possible mean (pendulum_optimum.py).
"""

import argparse
import contextlib
import importlib
import inspect
import io
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from common.errors import UserError
from common.files.names import ROOT
from common.flags import Command
from common.pendulum.optimum import best_return
from common.tasks.making import make
from common.training.evaluation import TEST_STARTS, Evaluation


def load_agent(settings):
    """The agent of a script with these Settings, with its saved weights, or the shipped ones."""
    module = importlib.import_module(settings.script.stem)
    from common import networks  # late: it imports TensorFlow, which the script does quietly

    with contextlib.closing(make(settings.env_id, settings=settings)) as env:
        spaces = {"state_dim": env.observation_space.shape[0],
                  "action_dim": env.action_space.shape[0], "action_range": env.action_space.high}
    before = {name: vars(module)[name] for name in settings.constants}
    vars(module).update(settings.constants)  # off which DDPG reads all of its sizes
    agent_class = getattr(module, settings.algorithm)
    options = {name: settings.constants[name.upper()]
               for name in inspect.signature(agent_class).parameters
               if name.upper() in settings.constants}
    if hasattr(module, "ReplayBuffer"):
        options["replay_buffer"] = module.ReplayBuffer(1)
    with contextlib.redirect_stdout(io.StringIO()):  # the networks that it prints
        agent = agent_class(**spaces, **options)
    vars(module).update(before)
    networks.load(agent, settings)
    return agent


def returns_of(agent, settings, starts):
    """What the agent's greedy episodes earn."""
    with contextlib.closing(make(settings.env_id, settings=settings)) as env, \
            contextlib.closing(Evaluation(env, settings.constants["MAX_STEPS"])) as evaluation:
        return evaluation.returns(agent, starts)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--algorithms", nargs="+", default=["ddpg", "td3", "sac"],
                        choices=["ddpg", "td3", "sac"], help="default: all three")
    parser.add_argument("--env", default="Pendulum-v1", help="environment (default: Pendulum-v1)")
    parser.add_argument("--model-dir", default="model", help="folder of the weights")
    parser.add_argument("--preset", default="chapter", help="as given when training")
    parser.add_argument("--starts", type=int, default=100, help="start states (default: 100)")
    args = parser.parse_args()
    if not 1 <= args.starts <= 100:
        parser.error("--starts takes 1 to 100")
    starts = TEST_STARTS[: args.starts]
    try:
        flags = ["--test", "--env", args.env, "--preset", args.preset,
                 "--model-dir", args.model_dir]
        runs = [Command(ROOT / f"{name}.py").read(flags) for name in args.algorithms]
        agents = [load_agent(settings) for settings in runs]
        print(f"| {args.env} | mean return | worst return |\n|---|---|---|")
        for agent, settings in zip(agents, runs):
            returns = returns_of(agent, settings, starts)
            mean, worst = sum(returns) / len(returns), min(returns)
            print(f"| {settings.algorithm} | {mean:.1f} | {worst:.1f} |", flush=True)
    except UserError as error:
        sys.exit(f"{parser.prog}: {error}")
    best = best_return(args.env, starts)
    if best is not None:
        print(f"| best possible | {best:.1f} | |")


if __name__ == "__main__":
    main()
