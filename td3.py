"""TD3 on Pendulum (section 6.5.3): twin delayed deep deterministic policy gradient.

Algorithm 6.27 of the chapter; Fujimoto, van Hoof and Meger, 2018, arXiv:1802.09477.

    python td3.py --train        learn, save the weights and the reward curve
    python td3.py --test         load the weights and play greedily
"""

from common import arguments

ALG_NAME = "TD3"
ENV_ID = "Pendulum-v1"  # environment: an id of Gym or Gymnasium, or module:ID
RANDOM_SEED = 2  # fixes everything random, in [0, 4294967295]
RENDER = False  # show training in a window

TRAIN_EPISODES = 100  # episodes of training, in [1, inf)
TRAIN_STEPS = 0  # steps of training, whatever the episodes (0: episodes count), in [0, inf)
TEST_EPISODES = 10  # episodes of testing, in [1, inf)
MAX_STEPS = 200  # steps after which an episode is cut, in [1, inf)
BATCH_SIZE = 64  # transitions in an update, in [1, 1e6]
EXPLORE_STEPS = 500  # up to this step, actions are uniformly random, in [0, inf)

HIDDEN_DIM = 64  # units in each hidden layer, in [1, 4096]
Q_LR = 3e-4  # learning rate of the Q networks, in (0, inf)
POLICY_LR = 3e-4  # learning rate of the policy, in (0, inf)
GAMMA = 0.9  # discount factor, in [0, 1]
SOFT_TAU = 1e-2  # share of the network in a soft update of its target, in (0, 1]
POLICY_TARGET_UPDATE_INTERVAL = 3  # Q updates for each policy update, in [1, inf)
POLICY_LOSS = "q1"  # Q value that the policy climbs, in {q1, min}
EXPLORE_NOISE_SCALE = 1.0  # standard deviation of the exploration noise, in [0, inf)
EVAL_NOISE_SCALE = 0.5  # the same of target policy smoothing, in [0, inf)
REWARD_SCALE = 1.0  # factor of the (standardised) rewards, in (0, inf)
REPLAY_BUFFER_SIZE = 500_000  # transitions kept, in [1, 1e9]
UPDATE_ITR = 3  # updates after each step, in [1, inf)
CHECKPOINT_EVERY = 10  # episodes between savings of the training state, in [1, inf)
EVALUATE_EVERY = 0  # steps between greedy evaluations (0: none), in [0, inf)
EVALUATION_EPISODES = 10  # episodes of an evaluation, in [1, 1000]
KEEP = "last"  # weights that are saved (best: of the best evaluation), in {last, best}

# Not in the chapter; with these values, as the chapter has it:
STANDARDISE_REWARDS = True  # rewards minus their batch's mean, over its standard deviation
CLIP_ACTIONS = False  # no noise carries an action beyond the range (errata E10)
LEARN_AFTER = 0  # transitions stored before learning starts, if a batch is fewer, in [0, inf)
EXPLORE_HOLD = 1  # steps for which a uniformly random action is held, in [1, inf)
UNIT_ACTIONS = False  # the agent's actions are in [-1, 1], whatever the environment's range
WEIGHT_INIT = "small"  # uniform weights, up to 0.003 or the papers' fan-in, in {small, fan_in}

MODEL_DIR = "model"  # folder of the weights
IMAGE_DIR = "image"  # folder of the curves

PRESETS = {
    # Fujimoto et al., 2018: section 6.1 and the appendix' table of hyper-parameters
    "paper": {
        "MAX_STEPS": 1000,  # the tasks' own limit
        "BATCH_SIZE": 256,  # the authors' present code; the paper: 100
        "EXPLORE_STEPS": 1000,  # 10000 for HalfCheetah and Ant
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
    },
}
PRESETS["tuned"] = {
    **PRESETS["paper"],
    # for Pendulum, chosen by trials on seed 0:
    "BATCH_SIZE": 128,
    "HIDDEN_DIM": 64,
    "Q_LR": 1e-3,
    "POLICY_LR": 1e-3,
    "REWARD_SCALE": 0.1,  # Q is then in the tens, not the hundreds
    "UPDATE_ITR": 2,
    "LEARN_AFTER": 0,
    "EVALUATE_EVERY": 1000,
    "EVALUATION_EPISODES": 100,  # fewer do not tell the rare starts that matter
    "KEEP": "best",
}

args = arguments.parse(globals())  # before the long imports, so that --help answers at once

import contextlib
import random
import time

import numpy as np
import tensorflow as tf
from tensorlayer.layers import Dense
from tensorlayer.models import Model

from common import explain, report, weights
from common.compiled import Compiler, StandardNormal, cannot_be_copied, compiled, joined
from common.environment import make
from common.networks import check_choice, connect, fan_in, memory_for, networks_of
from common.replay_buffer import ReplayBuffer


class QNetwork(Model):
    """Q(s, a): [state, action] -> hidden -> hidden -> 1, through TensorLayer's dynamic API.

    Args:
        num_inputs, num_actions: sizes of a state and an action.
        hidden_dim: units in each hidden layer.
        init_w: weights start uniform in [-init_w, init_w].
        weight_init: "small", as said; "fan_in" as in the papers.
    """

    def __init__(self, num_inputs, num_actions, hidden_dim, init_w=3e-3, weight_init=WEIGHT_INIT):
        super().__init__()
        input_dim = num_inputs + num_actions
        uniform = tf.random_uniform_initializer(-init_w, init_w)
        w_init = {"small": uniform, "fan_in": fan_in}[weight_init]

        self.linear1 = Dense(n_units=hidden_dim, act=tf.nn.relu, W_init=w_init,
                             in_channels=input_dim, name="q1")
        self.linear2 = Dense(n_units=hidden_dim, act=tf.nn.relu, W_init=w_init,
                             in_channels=hidden_dim, name="q2")
        self.linear3 = Dense(n_units=1, W_init=w_init, in_channels=hidden_dim, name="q3")
        connect(self, input_dim)

    def forward(self, input):
        """Q values (N, 1) of inputs (N, state_dim + action_dim)."""
        x = self.linear1(input)
        x = self.linear2(x)
        x = self.linear3(x)
        return x


class PolicyNetwork(Model):
    """The deterministic policy: state -> three hidden layers -> tanh.

    Args:
        num_inputs, num_actions: sizes of a state and an action.
        hidden_dim: units in each hidden layer.
        action_range: half the width of the action interval, a number or (num_actions,).
        init_w: weights start uniform in [-init_w, init_w].
        clip_actions: no noise carries an action beyond the range.
        weight_init: "small", as said; "fan_in" as in the papers.
    """

    def __init__(self, num_inputs, num_actions, hidden_dim, action_range=1.0, init_w=3e-3,
                 clip_actions=CLIP_ACTIONS, weight_init=WEIGHT_INIT):
        super().__init__()
        uniform = tf.random_uniform_initializer(-init_w, init_w)
        w_init = {"small": uniform, "fan_in": fan_in}[weight_init]

        self.linear1 = Dense(n_units=hidden_dim, act=tf.nn.relu, W_init=w_init,
                             in_channels=num_inputs, name="policy1")
        self.linear2 = Dense(n_units=hidden_dim, act=tf.nn.relu, W_init=w_init,
                             in_channels=hidden_dim, name="policy2")
        self.linear3 = Dense(n_units=hidden_dim, act=tf.nn.relu, W_init=w_init,
                             in_channels=hidden_dim, name="policy3")
        self.output_linear = Dense(n_units=num_actions, W_init=w_init,
                                   b_init=tf.random_uniform_initializer(-init_w, init_w),
                                   in_channels=hidden_dim, name="policy_output")

        self.action_range = np.float32(action_range)
        self.num_actions = num_actions
        self.clip_actions = clip_actions
        self.generator = np.random.default_rng(np.random.randint(2**31))  # of all its noise
        connect(self, num_inputs)

    def forward(self, state):
        """Actions (N, num_actions) in [-1, 1] for states (N, num_inputs)."""
        x = self.linear1(state)
        x = self.linear2(x)
        x = self.linear3(x)
        output = tf.nn.tanh(self.output_linear(x))  # the output range is [-1, 1]
        return output

    def evaluate(self, state, eval_noise_scale):
        """Scaled actions with clipped noise, the target policy smoothing of (6.16).

        Args:
            state: (N, num_inputs).
            eval_noise_scale: standard deviation of the noise, clipped at twice this.

        Returns:
            (N, num_actions), differentiable; noise may carry it beyond the range (clip_actions).
        """
        state = tf.cast(state, tf.float32)
        action = self.forward(state)
        action = self.action_range * action

        eval_noise_clip = 2 * eval_noise_scale
        normal = StandardNormal(self.generator)
        noise = normal.sample(action.shape) * eval_noise_scale
        noise = tf.clip_by_value(noise, -eval_noise_clip, eval_noise_clip)
        action = action + noise
        if self.clip_actions:
            action = tf.clip_by_value(action, -self.action_range, self.action_range)
        return action

    @compiled
    def act(self, state):
        """forward(), for the loop."""
        return self.forward(state)

    def get_action(self, state, explore_noise_scale, greedy=False):
        """The action (num_actions,) for one state (num_inputs,), with noise unless greedy."""
        action = self.act(np.asarray(state, np.float32)[np.newaxis])[0]
        action = self.action_range * action
        if greedy:
            return action
        noise = self.generator.standard_normal(self.num_actions, dtype=np.float32)
        action = action + explore_noise_scale * noise
        if self.clip_actions:
            action = np.clip(action, -self.action_range, self.action_range)
        return action

    def sample_action(self):
        """A uniformly random action (num_actions,)."""
        a = self.generator.uniform(-1, 1, self.num_actions)
        return self.action_range * a


class TD3:
    """Twin delayed DDPG: two Q networks, one policy, and a target of each.

    Args:
        state_dim, action_dim: sizes of a state and an action.
        replay_buffer: ReplayBuffer to learn from.
        hidden_dim: units in each hidden layer.
        action_range: half the width of the action interval, a number or (action_dim,).
        policy_target_update_interval: Q updates for each policy update.
        q_lr, policy_lr: learning rates of Adam.
        the rest: as the constants and flags of these names, by default with their values.
    """

    __reduce__ = cannot_be_copied

    def __init__(self, state_dim, action_dim, replay_buffer, hidden_dim, action_range,
                 policy_target_update_interval=1, q_lr=3e-4, policy_lr=3e-4,
                 policy_loss=POLICY_LOSS, standardise_rewards=STANDARDISE_REWARDS,
                 clip_actions=CLIP_ACTIONS, weight_init=WEIGHT_INIT, eager=args.eager):
        self.replay_buffer = replay_buffer
        self.policy_loss, self.standardise_rewards = policy_loss, standardise_rewards

        # all networks
        sizes = state_dim, action_dim, hidden_dim
        self.q_net1 = QNetwork(*sizes, weight_init=weight_init)
        self.q_net2 = QNetwork(*sizes, weight_init=weight_init)
        self.target_q_net1 = QNetwork(*sizes, weight_init=weight_init)
        self.target_q_net2 = QNetwork(*sizes, weight_init=weight_init)
        options = {"clip_actions": clip_actions, "weight_init": weight_init}
        self.policy_net = PolicyNetwork(*sizes, action_range, **options)
        self.target_policy_net = PolicyNetwork(*sizes, action_range, **options)

        # targets start as copies
        self.target_q_net1 = self.target_ini(self.q_net1, self.target_q_net1)
        self.target_q_net2 = self.target_ini(self.q_net2, self.target_q_net2)
        self.target_policy_net = self.target_ini(self.policy_net, self.target_policy_net)

        # training mode
        for net in (self.q_net1, self.q_net2, self.target_q_net1, self.target_q_net2,
                    self.policy_net, self.target_policy_net):
            net.train()

        self.update_cnt = 0
        self.policy_target_update_interval = policy_target_update_interval

        self.q_optimizer1 = tf.optimizers.Adam(q_lr)
        self.q_optimizer2 = tf.optimizers.Adam(q_lr)
        self.policy_optimizer = tf.optimizers.Adam(policy_lr)

        self.losses = None  # and mean Q, of the last update; the policy's is 0 when delayed
        self.loss_names = ["loss/q1", "loss/q2", "loss/policy", "q/mean"]
        self.compiler = Compiler(self, eager, self._join)
        self._join()

    def _join(self):
        """Give each optimizer slots for its network's weights, also where one is replaced later."""
        self.q_optimizer1 = joined(self.q_optimizer1, self.q_net1.trainable_weights)
        self.q_optimizer2 = joined(self.q_optimizer2, self.q_net2.trainable_weights)
        self.policy_optimizer = joined(self.policy_optimizer, self.policy_net.trainable_weights)
        check_choice("policy_loss", self.policy_loss, "q1", "min")

    def target_ini(self, net, target_net):
        """Copy net's weights into target_net."""
        for target_param, param in zip(target_net.trainable_weights, net.trainable_weights):
            target_param.assign(param)
        return target_net

    def target_soft_update(self, net, target_net, soft_tau):
        """Move target_net's weights towards net's by the share soft_tau (Polyak averaging)."""
        for target_param, param in zip(target_net.trainable_weights, net.trainable_weights):
            target_param.assign(target_param * (1.0 - soft_tau) + param * soft_tau)
        return target_net

    def update(self, batch_size, eval_noise_scale, reward_scale=10.0, gamma=0.9, soft_tau=1e-2,
               n_updates=1):
        """Update all networks n_updates times, each time from a new batch.

        Args:
            batch_size: transitions in a batch; a ValueError if fewer are stored.
            eval_noise_scale: standard deviation of target policy smoothing (6.16).
            reward_scale: factor of the rewards (standardised over the batch, see the constants).
            gamma: discount factor.
            soft_tau: share of the networks in the soft updates of their targets.
            n_updates: how many updates to make in one compiled call.
        """
        batches = self.replay_buffer.rows(batch_size, n_updates)
        policy_turns = []
        for _ in range(n_updates):
            self.update_cnt += 1
            # Technique two, delayed policy updates: not at every update of the Q functions
            policy_turns.append(self.update_cnt % self.policy_target_update_interval == 0)
        self.losses = self.compiler.for_each(
            self._update_from, batches, tuple(policy_turns), float(eval_noise_scale),
            float(reward_scale), float(gamma), float(soft_tau),
        )

    def _update_from(self, batch, policy_turn, eval_noise_scale, reward_scale, gamma, soft_tau):
        """One update: the body of the chapter's update(), algorithm 6.27."""
        state, action, reward, next_state, done = self.replay_buffer.columns(batch)

        # Technique three, target policy smoothing: noise on the target action (6.16)
        new_next_action = self.target_policy_net.evaluate(
            next_state, eval_noise_scale=eval_noise_scale
        )  # clipped normal noise

        # rewards standardised over the batch; 1e-6 for batches of equal rewards
        if self.standardise_rewards:
            reward = (reward - tf.reduce_mean(reward, axis=0)) / (
                tf.math.reduce_std(reward, axis=0) + 1e-6
            )
        reward = reward_scale * reward

        # Training the Q functions
        target_q_input = tf.concat([next_state, new_next_action], 1)
        # Technique one, clipped double Q-learning: the smaller target value (6.14)
        target_q_min = tf.minimum(self.target_q_net1(target_q_input),
                                  self.target_q_net2(target_q_input))
        target_q_value = reward + (1 - done) * gamma * target_q_min  # if done, only the reward
        q_input = tf.concat([state, action], 1)

        with tf.GradientTape() as q1_tape:
            predicted_q_value1 = self.q_net1(q_input)
            q_value_loss1 = tf.reduce_mean(tf.square(predicted_q_value1 - target_q_value))
        q1_grad = q1_tape.gradient(q_value_loss1, self.q_net1.trainable_weights)
        self.q_optimizer1.apply_gradients(zip(q1_grad, self.q_net1.trainable_weights))

        with tf.GradientTape() as q2_tape:
            predicted_q_value2 = self.q_net2(q_input)
            q_value_loss2 = tf.reduce_mean(tf.square(predicted_q_value2 - target_q_value))
        q2_grad = q2_tape.gradient(q_value_loss2, self.q_net2.trainable_weights)
        self.q_optimizer2.apply_gradients(zip(q2_grad, self.q_net2.trainable_weights))

        # Training the policy
        policy_loss = 0.0
        if policy_turn:
            with tf.GradientTape() as p_tape:
                new_action = self.policy_net.evaluate(state, eval_noise_scale=0.0)  # no noise
                new_q_input = tf.concat([state, new_action], 1)
                if self.policy_loss == "min":  # implementation 1
                    predicted_new_q_value = tf.minimum(self.q_net1(new_q_input),
                                                       self.q_net2(new_q_input))
                else:  # implementation 2
                    predicted_new_q_value = self.q_net1(new_q_input)
                policy_loss = -tf.reduce_mean(predicted_new_q_value)
            p_grad = p_tape.gradient(policy_loss, self.policy_net.trainable_weights)
            self.policy_optimizer.apply_gradients(zip(p_grad, self.policy_net.trainable_weights))

            # Soft updates of the targets
            self.target_q_net1 = self.target_soft_update(self.q_net1, self.target_q_net1, soft_tau)
            self.target_q_net2 = self.target_soft_update(self.q_net2, self.target_q_net2, soft_tau)
            self.target_policy_net = self.target_soft_update(self.policy_net,
                                                             self.target_policy_net, soft_tau)
        q_mean = tf.reduce_mean(predicted_q_value1)
        return tf.stack([q_value_loss1, q_value_loss2, policy_loss, q_mean])

    @compiled
    def greedy_actions(self, states):
        """The actions (N, action_dim) that get_action() gives for states (N, state_dim), greedy."""
        return self.policy_net.action_range * self.policy_net.act(states)

    def q_values(self, states, actions):
        """Q values (N,) of actions (N, action_dim) in states (N, state_dim): the smaller."""
        q_input = tf.concat([states, actions], 1)
        return tf.minimum(self.q_net1(q_input), self.q_net2(q_input)).numpy()[:, 0]

    def save(self, path=None):
        """Save all networks into the npz file `path`, or the usual one; returns its path."""
        path = path or weights.path(MODEL_DIR, ALG_NAME, ENV_ID, args.preset)
        weights.save(path, ALG_NAME, ENV_ID, networks_of(self), UNIT_ACTIONS)
        return path

    def load(self, path=None):
        """Load all networks; raises UserError, with the agent unchanged, if the file is unfit."""
        path = path or weights.find(MODEL_DIR, ALG_NAME, ENV_ID, args.preset)
        weights.load(path, ALG_NAME, ENV_ID, networks_of(self), UNIT_ACTIONS)


if __name__ == "__main__":
    env = make(ENV_ID, render=RENDER, unit_actions=UNIT_ACTIONS)
    ENV_ID = env.env_id
    state_dim = env.observation_space.shape[0]
    action_dim = env.action_space.shape[0]
    action_range = env.action_space.high  # actions are in [-action_range, action_range]

    # seeds, for results that repeat
    env.seed(RANDOM_SEED)
    random.seed(RANDOM_SEED)
    np.random.seed(RANDOM_SEED)
    tf.random.set_seed(RANDOM_SEED)

    replay_buffer = ReplayBuffer(REPLAY_BUFFER_SIZE)
    with memory_for("--hidden-dim", HIDDEN_DIM):
        agent = TD3(state_dim, action_dim, replay_buffer, HIDDEN_DIM, action_range,
                    POLICY_TARGET_UPDATE_INTERVAL, Q_LR, POLICY_LR)

    if args.train:
        with report.Training(agent, env, args, globals()) as log:
            frame_idx = log.steps  # 0, unless resumed
            for episode in log.episodes():  # TRAIN_EPISODES, or as many as TRAIN_STEPS takes
                state = env.reset()
                episode_reward = 0
                for step in range(MAX_STEPS):
                    if RENDER:
                        env.render()
                    if frame_idx > EXPLORE_STEPS:
                        action = agent.policy_net.get_action(state, EXPLORE_NOISE_SCALE)
                    elif step % EXPLORE_HOLD == 0:
                        action = agent.policy_net.sample_action()
                    next_state, reward, done, info = env.step(action)
                    replay_buffer.push(state, action, reward, next_state, done)
                    state = next_state
                    episode_reward += reward
                    frame_idx += 1

                    if len(replay_buffer) > max(BATCH_SIZE, LEARN_AFTER):
                        agent.update(BATCH_SIZE, EVAL_NOISE_SCALE, REWARD_SCALE, GAMMA, SOFT_TAU,
                                     n_updates=UPDATE_ITR)
                    if done or info["TimeLimit.truncated"]:
                        break
                log.episode(episode_reward, step + 1, noise_scale=EXPLORE_NOISE_SCALE)

    if args.test:
        env.close()  # a simulator may be open only once
        agent.load()
        t0 = time.time()
        rewards = []
        film = report.film_path(args, globals())
        with contextlib.closing(make(ENV_ID, True, film, UNIT_ACTIONS)) as env:
            env.seed(RANDOM_SEED)
            for episode in range(TEST_EPISODES):
                state = env.reset()
                episode_reward = 0
                for step in range(MAX_STEPS):
                    env.render()
                    action = agent.policy_net.get_action(state, EXPLORE_NOISE_SCALE, greedy=True)
                    state, reward, done, info = env.step(action)
                    episode_reward += reward
                    if done or info["TimeLimit.truncated"]:
                        break
                rewards.append(episode_reward)
                report.episode_line("Testing", f"{episode + 1}/{TEST_EPISODES}", episode_reward, t0)
        report.test_summary(rewards)
        if args.explain:
            explain.save(agent, args, globals())
