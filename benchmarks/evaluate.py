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
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from common import quiet
from common.constants import options_of
from common.errors import UserError


def load_agent(algorithm, env_id, model_dir, preset="chapter"):
    """The module of an algorithm, with a preset's constants, and its agent, with saved weights."""
    from common.making import make

    module = importlib.import_module(algorithm)
    if preset not in ("chapter", *module.PRESETS):
        raise UserError(f"--preset {preset}: {algorithm}.py has {', '.join(module.PRESETS)}")
    vars(module).update(module.PRESETS.get(preset, {}))
    env = make(env_id, unit_actions=module.UNIT_ACTIONS)
    module.ENV_ID, module.MODEL_DIR, module.args.preset = env.env_id, model_dir, preset
    env.close()  # a simulator may run only once
    state_dim, action_dim = env.observation_space.shape[0], env.action_space.shape[0]
    agent_class, action_range = getattr(module, module.ALG_NAME), env.action_space.high
    options = options_of(agent_class, vars(module))
    if algorithm != "ddpg":
        options["replay_buffer"] = module.ReplayBuffer(module.REPLAY_BUFFER_SIZE)
    agent = agent_class(
        state_dim=state_dim, action_dim=action_dim, action_range=action_range, **options
    )
    agent.load()
    return module, agent


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
            module, agent = load_agent(algorithm, args.env, args.model_dir, args.preset)
            played = Evaluation(module.ENV_ID, module.MAX_STEPS, module.UNIT_ACTIONS)
            with contextlib.closing(played) as evaluation:
                returns = evaluation.returns(agent, TEST_STARTS[: args.starts])
            mean, worst = sum(returns) / len(returns), min(returns)
            print(f"| {module.ALG_NAME} | {mean:.1f} | {worst:.1f} |", flush=True)
    except UserError as error:
        sys.exit(f"{parser.prog}: {error}")
    best = optimum(args.env, TEST_STARTS[: args.starts])
    if best is not None:
        print(f"| best possible | {best:.1f} | |")


if __name__ == "__main__":
    main()
