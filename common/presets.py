"""Sets of constants, `--preset NAME`, with a source for each value; single flags override."""

PRESETS = {"DDPG": {}, "TD3": {}, "SAC": {}}

_TUNED = {  # for Pendulum, all three
    "UPDATE_ITR": 2,
    "REWARD_SCALE": 0.1,  # Q is then in the tens, not the hundreds
    "EVALUATE_EVERY": 1000,
    "EVALUATION_EPISODES": 100,  # fewer do not tell the rare starts that matter
    "KEEP": "best",
}

# Lillicrap et al., 2016: section 7, "Experiment Details", without batch normalisation,
# weight decay and the late entry of the action into the critic
PRESETS["DDPG"]["paper"] = {
    "MAX_STEPS": 1000,  # the tasks' own limit
    "LR_A": 1e-4,
    "LR_C": 1e-3,
    "GAMMA": 0.99,
    "TAU": 0.001,
    "MEMORY_CAPACITY": 1_000_000,
    "BATCH_SIZE": 64,
    "HIDDEN_DIM": 300,  # the paper: 400, then 300
    "NOISE": "ou",
    "VAR": 0.365,  # of the range; sigma 0.2 / sqrt(2 theta), with theta 0.15
    "VAR_DECAY": 1.0,
    "EXPLORE_STEPS": 1000,  # the paper does not say; as Fujimoto et al., 2018
    "LEARN_AFTER": 1000,  # the same
    "UNIT_ACTIONS": True,
    "WEIGHT_INIT": "fan_in",
}
# For Pendulum, chosen by trials on seeds 0 and 1
PRESETS["DDPG"]["tuned"] = PRESETS["DDPG"]["paper"] | _TUNED | {
    "LR_A": 1e-3,
    "TAU": 0.005,
    "BATCH_SIZE": 128,
    "HIDDEN_DIM": 64,
    "VAR": 0.1,
}

# Fujimoto et al., 2018: section 6.1 and the appendix' table of hyper-parameters
PRESETS["TD3"]["paper"] = {
    "MAX_STEPS": 1000,  # the tasks' own limit
    "BATCH_SIZE": 256,  # the authors' present code; the paper: 100
    "EXPLORE_STEPS": 1000,  # in HalfCheetah and Ant the authors have 10,000
    "HIDDEN_DIM": 256,  # the authors' present code; the paper: 400, then 300
    "Q_LR": 3e-4,  # the authors' present code; the paper: 1e-3, with which the chapter's
    "POLICY_LR": 3e-4,  # policy of one layer more saturates on Hopper and learns no more
    "GAMMA": 0.99,
    "SOFT_TAU": 0.005,
    "POLICY_TARGET_UPDATE_INTERVAL": 2,
    "EXPLORE_NOISE_SCALE": 0.1,  # of the range
    "EVAL_NOISE_SCALE": 0.2,  # of the range; the paper clips it at 0.5, evaluate() at 0.4
    "REPLAY_BUFFER_SIZE": 1_000_000,
    "UPDATE_ITR": 1,
    "STANDARDISE_REWARDS": False,
    "LEARN_AFTER": 1000,  # as EXPLORE_STEPS: the authors' code learns from then on
    "CLIP_ACTIONS": True,  # algorithm 1 of the authors' code
    "UNIT_ACTIONS": True,  # so that noise is in shares of the range
    "WEIGHT_INIT": "fan_in",  # PyTorch's default, which the authors used
}
# For Pendulum, chosen by trials on seed 0
PRESETS["TD3"]["tuned"] = PRESETS["TD3"]["paper"] | _TUNED | {
    "BATCH_SIZE": 128,
    "HIDDEN_DIM": 64,
    "Q_LR": 1e-3,
    "POLICY_LR": 1e-3,
    "LEARN_AFTER": 0,
}

# Haarnoja et al., 2018, arXiv:1812.05905: table 1 of the appendix
PRESETS["SAC"]["paper"] = {
    "MAX_STEPS": 1000,  # the tasks' own limit
    "BATCH_SIZE": 256,
    "EXPLORE_STEPS": 1000,  # the authors' code
    "HIDDEN_DIM": 256,
    "SOFT_Q_LR": 3e-4,
    "POLICY_LR": 3e-4,
    "ALPHA_LR": 3e-4,
    "GAMMA": 0.99,
    "SOFT_TAU": 0.005,
    "REPLAY_BUFFER_SIZE": 1_000_000,
    "UPDATE_ITR": 1,
    "STANDARDISE_REWARDS": False,
    "LEARN_AFTER": 1000,  # as EXPLORE_STEPS: the authors' code learns from then on
    "UNIT_ACTIONS": True,  # the target entropy, -action_dim, is meant for them
    "WEIGHT_INIT": "fan_in",  # small weights would keep the Qs flat for thousands of steps
}
# For Pendulum, chosen by trials on seeds 0 and 1
PRESETS["SAC"]["tuned"] = PRESETS["SAC"]["paper"] | _TUNED | {
    "HIDDEN_DIM": 64,
    "SOFT_Q_LR": 1e-3,
    "POLICY_LR": 1e-3,
    "ALPHA_LR": 1e-3,
    "SOFT_TAU": 0.01,
    "LEARN_AFTER": 0,
}
