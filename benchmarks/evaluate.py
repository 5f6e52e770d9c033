"""How good are the saved weights? Greedy returns over fixed start states.

    python benchmarks/evaluate.py                     the three agents of model/ on Pendulum
    python benchmarks/evaluate.py --algorithms td3 --preset paper --model-dir mine

Each agent plays one greedy episode from each of the start states that
`env.reset(seed=0)` to `env.reset(seed=99)` give, and the table shows mean and
worst return; on Pendulum also the best possible mean (pendulum_optimum.py).
"""

import argparse
import contextlib
import importlib
import io
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from common import quiet
from common.arguments import Command
from common.constants import options_of
from common.errors import UserError

ROOT = Path(__file__).parent.parent


def load_agent(settings):
    """The agent of a script with these Settings, with its saved weights."""
    from common import networks
    from common.making import make

    module = importlib.import_module(settings.script.stem)
    env = make(settings.env_id, unit_actions=settings.unit_actions)
    env.close()  # a simulator may run only once
    options = options_of(getattr(module, settings.algorithm), settings.everything)
    if settings.algorithm != "DDPG":
        options["replay_buffer"] = module.ReplayBuffer(1)
    with contextlib.redirect_stdout(io.StringIO()):  # the networks it prints, within a table
        agent = getattr(module, settings.algorithm)(
            state_dim=env.observation_space.shape[0], action_dim=env.action_space.shape[0],
            action_range=env.action_space.high, **options,
        )
    networks.load(agent, settings)
    return agent


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
    quiet.prepare(verbose=False)
    from common.evaluation import TEST_STARTS, Evaluation, optimum

    print(f"| {args.env} | mean return | worst return |\n|---|---|---|")
    try:
        for algorithm in args.algorithms:
            settings = Command(ROOT / f"{algorithm}.py").read(
                ["--test", "--env", args.env, "--preset", args.preset,
                 "--model-dir", args.model_dir])
            agent = load_agent(settings)
            limit = settings.constants["MAX_STEPS"]
            played = Evaluation(settings.env_id, limit, settings.unit_actions)
            with contextlib.closing(played) as evaluation:
                returns = evaluation.returns(agent, TEST_STARTS[: args.starts])
            mean, worst = sum(returns) / len(returns), min(returns)
            print(f"| {settings.algorithm} | {mean:.1f} | {worst:.1f} |", flush=True)
    except UserError as error:
        sys.exit(f"{parser.prog}: {error}")
    best = optimum(args.env, TEST_STARTS[: args.starts])
    if best is not None:
        print(f"| best possible | {best:.1f} | |")


if __name__ == "__main__":
    main()
