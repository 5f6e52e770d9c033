from common.environment import make  # until the environment branch is merged
