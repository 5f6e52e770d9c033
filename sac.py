"""SAC on Pendulum (section 6.5.4): soft actor-critic.

Algorithm 6.28 of the chapter; Haarnoja et al., 2018, arXiv:1812.05905.

    python sac.py --train        learn, save the weights and the reward curve
    python sac.py --test         load the weights and play greedily
"""

from common import flags

ALG_NAME = "SAC"
ENV_ID = "Pendulum-v1"  # environment to learn: an id of Gym or Gymnasium, or module:ID
RANDOM_SEED = 2  # seed of everything random, in [0, 4294967295]
RENDER = False  # show the training in a window

TRAIN_EPISODES = 100  # episodes of training, in [1, inf)
TEST_EPISODES = 10  # episodes that --test plays, in [1, inf)
MAX_STEPS = 200  # steps after which an episode is cut, in [1, inf)
BATCH_SIZE = 256  # transitions in the batch of an update, in [1, 1e6]
EXPLORE_STEPS = 100  # steps at the start, and one more, with uniformly random actions, in [0, inf)

HIDDEN_DIM = 32  # units in each hidden layer, in [1, 4096]
SOFT_Q_LR = 3e-4  # learning rate of the soft Q networks, in (0, inf)
POLICY_LR = 3e-4  # learning rate of the policy, in (0, inf)
ALPHA_LR = 3e-4  # learning rate of log alpha, the entropy's weight, in (0, inf)
GAMMA = 0.99  # discount factor, in [0, 1]
SOFT_TAU = 1e-2  # weight of the networks in a soft update of their targets, in (0, 1]
AUTO_ENTROPY = True  # learn alpha, the entropy's weight; otherwise it is 1, or --alpha
REWARD_SCALE = 1.0  # factor of the rewards, standardised or not, in (0, inf)
REPLAY_BUFFER_SIZE = 500_000  # transitions that the replay buffer holds, in [1, 1e9]
UPDATE_ITR = 3  # updates after each step, in [1, inf)

# Ours; with these values, as the chapter has it:
POLICY_LOSS = "min"  # Q that the policy maximises (min: the smaller of two), in {min, q1}
STANDARDISE_REWARDS = True  # standardise the rewards of a batch: mean 0, standard deviation 1
ALPHA = 0.0  # a fixed alpha, which is not learned (0: as --auto-entropy says), in [0, 1e6]
LEARN_AFTER = 0  # learning starts with more transitions than this and than a batch, in [0, inf)
WEIGHT_INIT = "small"  # the Qs' first weights, up to 0.003 or 1 / sqrt(inputs), in {small, fan_in}

args = flags.parse(globals())  # sets each to its flag's value, before the long imports

import random
import time

import numpy as np
import tensorflow as tf
from tensorlayer.layers import Dense
from tensorlayer.models import Model

from common import networks
from common.engine.plain import compiled
from common.networks import check_choice, fan_in
from common.noise import Normal
from common.tasks.making import make
from common.training.testing import Testing
from common.training.training import Training


class ReplayBuffer:
    """A ring of the last `capacity` transitions, in one array that is made at the first push."""

    def __init__(self, capacity):
        self.capacity = int(capacity)
        self.buffer = None
        self.position = 0
        self.size = 0
        # random.sample takes three times as long; random.seed() fixes these batches, too
        self.generator = np.random.default_rng(random.getrandbits(64))

    def push(self, state, action, reward, next_state, done):
        """Store one transition: arrays (state_dim,), (action_dim,), and numbers."""
        if self.buffer is None:
            fields = [("state", "f4", np.shape(state)), ("action", "f4", np.shape(action)),
                      ("reward", "f4"), ("next_state", "f4", np.shape(state)), ("done", "f4")]
            self.buffer = np.zeros(self.capacity, fields)
        self.buffer[self.position] = (state, action, reward, next_state, done)
        self.position = int((self.position + 1) % self.capacity)
        self.size = min(self.size + 1, self.capacity)

    def sample(self, batch_size):
        """A batch, drawn uniformly without replacement; a ValueError if fewer are stored.

        Returns state (N, state_dim), action (N, action_dim), reward (N,), next_state, done (N,).
        """
        indices = self.generator.choice(self.size, batch_size, replace=False, shuffle=False)
        batch = self.buffer.take(indices)
        state, action, reward, next_state, done = (batch[name] for name in batch.dtype.names)
        return state, action, reward, next_state, done

    def __len__(self):
        return self.size


class SoftQNetwork(Model):
    """Soft Q(s, a): [state, action] -> hidden -> hidden -> 1, through TensorLayer's dynamic API.

    num_inputs and num_actions are the sizes of a state and an action, hidden_dim the units in each
    hidden layer. Weights start uniform in [-init_w, init_w], or as common/networks.py's fan_in.
    """

    def __init__(self, num_inputs, num_actions, hidden_dim, init_w=3e-3, weight_init=WEIGHT_INIT):
        super().__init__()
        input_dim = num_inputs + num_actions
        w_init = tf.random_uniform_initializer(-init_w, init_w)
        if weight_init == "fan_in":  # ours
            w_init = fan_in

        self.linear1 = Dense(n_units=hidden_dim, act=tf.nn.relu, W_init=w_init,
                             in_channels=input_dim, name="q1")
        self.linear2 = Dense(n_units=hidden_dim, act=tf.nn.relu, W_init=w_init,
                             in_channels=hidden_dim, name="q2")
        self.linear3 = Dense(n_units=1, W_init=w_init, in_channels=hidden_dim, name="q3")
        self(tf.zeros([1, input_dim]), is_train=False)  # the extra call of the main part (E17)

    def forward(self, input):
        """Soft Q values (N, 1) of inputs (N, num_inputs + num_actions)."""
        x = self.linear1(input)
        x = self.linear2(x)
        x = self.linear3(x)
        return x


class PolicyNetwork(Model):
    """The stochastic policy: a normal distribution squashed by tanh, times action_range.

    Sizes as for SoftQNetwork; action_range is half the width of the action interval, a number or
    (num_actions,). The biases of both heads start uniform in [-init_w, init_w]; the logarithm of
    the standard deviation is clipped to [log_std_min, log_std_max].
    """

    def __init__(self, num_inputs, num_actions, hidden_dim, action_range=1.0, init_w=3e-3,
                 log_std_min=-20, log_std_max=2):
        super().__init__()
        self.log_std_min = log_std_min
        self.log_std_max = log_std_max
        # One for each layer: an initializer of Keras 3 gives the same values at every use.
        w_init = tf.keras.initializers.glorot_normal

        self.linear1 = Dense(n_units=hidden_dim, act=tf.nn.relu, W_init=w_init(),
                             in_channels=num_inputs, name="policy1")
        self.linear2 = Dense(n_units=hidden_dim, act=tf.nn.relu, W_init=w_init(),
                             in_channels=hidden_dim, name="policy2")
        self.linear3 = Dense(n_units=hidden_dim, act=tf.nn.relu, W_init=w_init(),
                             in_channels=hidden_dim, name="policy3")
        self.mean_linear = Dense(n_units=num_actions, W_init=w_init(),
                                 b_init=tf.random_uniform_initializer(-init_w, init_w),
                                 in_channels=hidden_dim, name="policy_mean")
        self.log_std_linear = Dense(n_units=num_actions, W_init=w_init(),
                                    b_init=tf.random_uniform_initializer(-init_w, init_w),
                                    in_channels=hidden_dim, name="policy_logstd")

        self.action_range = np.float32(action_range)
        self.num_actions = num_actions
        self(tf.zeros([1, num_inputs]), is_train=False)  # the extra call of the main part (E17)

    def forward(self, state):
        """Mean and clipped logarithm of the standard deviation, each (N, num_actions)."""
        x = self.linear1(state)
        x = self.linear2(x)
        x = self.linear3(x)
        mean = self.mean_linear(x)
        log_std = self.log_std_linear(x)
        log_std = tf.clip_by_value(log_std, self.log_std_min, self.log_std_max)
        return mean, log_std

    def evaluate(self, state, epsilon=1e-6):
        """Sample actions for states (N, num_inputs) by reparameterisation (6.27).

        epsilon keeps the logarithm finite where tanh saturates. Returns actions (N, num_actions),
        their log-probabilities (N, 1), z (N, num_actions) the normal sample, and mean and log_std
        (N, num_actions).
        """
        state = tf.cast(state, tf.float32)
        mean, log_std = self.forward(state)
        std = tf.math.exp(log_std)
        normal = Normal(0, 1)
        z = normal.sample(mean.shape)
        action_0 = tf.math.tanh(mean + std * z)  # TanhNormal, reparameterised
        action = self.action_range * action_0
        # The change of variables: tanh's derivative, then the scaling to the action range.
        log_prob = (Normal(mean, std).log_prob(mean + std * z)
                    - tf.math.log(1.0 - action_0**2 + epsilon) - np.log(self.action_range))
        # One term for each action dimension; their sum is the log-probability of the action.
        log_prob = tf.reduce_sum(log_prob, axis=1)[:, np.newaxis]
        return action, log_prob, z, mean, log_std

    @compiled
    def get_action(self, state, greedy=False):
        """The action (num_actions,) for one state (num_inputs,), at its mean if greedy."""
        mean, log_std = self.forward([state])
        std = tf.math.exp(log_std)
        normal = Normal(0, 1)
        z = normal.sample(mean.shape)
        action = self.action_range * tf.math.tanh(mean + std * z)  # TanhNormal, reparameterised

        action = self.action_range * tf.math.tanh(mean) if greedy else action
        return action[0]

    def sample_action(self):
        """A uniformly random action (num_actions,)."""
        a = np.random.uniform(-1, 1, [self.num_actions])
        return self.action_range * a


class SAC:
    """Soft actor-critic: two soft Q networks with targets, a stochastic policy, an alpha.

    It learns from replay_buffer. Sizes and action_range are as for PolicyNetwork; soft_q_lr,
    policy_lr and alpha_lr are Adam's. The rest is ours: as the constants of these names. `losses`
    are those of the last update.
    """

    def __init__(self, state_dim, action_dim, replay_buffer, hidden_dim, action_range,
                 soft_q_lr=3e-4, policy_lr=3e-4, alpha_lr=3e-4,
                 policy_loss=POLICY_LOSS, standardise_rewards=STANDARDISE_REWARDS,
                 alpha=ALPHA, weight_init=WEIGHT_INIT):
        self.replay_buffer = replay_buffer
        # ours
        self.fixed_alpha = alpha
        self.policy_loss, self.standardise_rewards = policy_loss, standardise_rewards
        check_choice("policy_loss", policy_loss, "min", "q1")
        check_choice("weight_init", weight_init, "small", "fan_in")
        options = {"weight_init": weight_init}
        self.losses = None

        # all networks
        self.soft_q_net1 = SoftQNetwork(state_dim, action_dim, hidden_dim, **options)
        self.soft_q_net2 = SoftQNetwork(state_dim, action_dim, hidden_dim, **options)
        self.target_soft_q_net1 = SoftQNetwork(state_dim, action_dim, hidden_dim, **options)
        self.target_soft_q_net2 = SoftQNetwork(state_dim, action_dim, hidden_dim, **options)
        self.policy_net = PolicyNetwork(state_dim, action_dim, hidden_dim, action_range)
        self.log_alpha = tf.Variable(0, dtype=np.float32, name="log_alpha")
        if alpha:  # ours
            self.log_alpha.assign(np.log(alpha))
        self.alpha = tf.math.exp(self.log_alpha)
        print("Soft Q Network (1,2): ", self.soft_q_net1)
        print("Policy Network: ", self.policy_net)
        # set mode
        self.soft_q_net1.train()
        self.soft_q_net2.train()
        self.target_soft_q_net1.eval()
        self.target_soft_q_net2.eval()
        self.policy_net.train()

        # targets start as copies
        self.target_soft_q_net1 = self.target_ini(self.soft_q_net1, self.target_soft_q_net1)
        self.target_soft_q_net2 = self.target_ini(self.soft_q_net2, self.target_soft_q_net2)

        self.soft_q_optimizer1 = tf.optimizers.Adam(soft_q_lr)
        self.soft_q_optimizer2 = tf.optimizers.Adam(soft_q_lr)
        self.policy_optimizer = tf.optimizers.Adam(policy_lr)
        self.alpha_optimizer = tf.optimizers.Adam(alpha_lr)
        # ours: their moments are there before the first update, for XLA and --resume
        self.soft_q_optimizer1.build(self.soft_q_net1.trainable_weights)
        self.soft_q_optimizer2.build(self.soft_q_net2.trainable_weights)
        self.policy_optimizer.build(self.policy_net.trainable_weights)
        self.alpha_optimizer.build([self.log_alpha])

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

    def update(self, batch_size, reward_scale=10.0, auto_entropy=True, target_entropy=-2,
               gamma=0.99, soft_tau=1e-2, n_updates=1):
        """Update all networks and alpha n_updates times in one call, each time from a new batch.

        reward_scale is a factor of the rewards, standardised or not. With auto_entropy alpha is
        learned, so that the policy's entropy goes to target_entropy (kappa in 6.29); without, it
        is 1; the constructor's alpha, where it is not 0, stays in both cases. gamma is the
        discount factor, soft_tau the share of the networks in the soft updates of their targets. A
        ValueError if fewer than batch_size transitions are stored.
        """
        batches = []
        for i in range(n_updates):  # the loop that is printed around update()
            state, action, reward, next_state, done = self.replay_buffer.sample(batch_size)
            batches.append((state, action, reward, next_state, done))
        learn_alpha = auto_entropy and not self.fixed_alpha
        self.losses = self.update_networks.for_each(batches, reward_scale, learn_alpha,
                                                    target_entropy, gamma, soft_tau)

    # The printed body goes on here, compiled; what may change at each call is an argument.
    @compiled
    def update_networks(self, state, action, reward, next_state, done, reward_scale, auto_entropy,
                        target_entropy, gamma, soft_tau):
        """One update from one batch; returns what TensorBoard shows, by name."""
        reward = reward[:, np.newaxis]  # expand dimension
        done = done[:, np.newaxis]
        # rewards standardised over the batch; 1e-6 for batches of equal rewards
        if self.standardise_rewards:
            reward = reward_scale * (reward - tf.reduce_mean(reward, axis=0)) / (
                tf.math.reduce_std(reward, axis=0) + 1e-6)
        else:  # ours
            reward = reward_scale * reward

        # Training the Q functions: the soft target of (6.25)
        new_next_action, next_log_prob, _, _, _ = self.policy_net.evaluate(next_state)
        target_q_input = tf.concat([next_state, new_next_action], 1)
        target_q_min = tf.minimum(
            self.target_soft_q_net1(target_q_input), self.target_soft_q_net2(target_q_input)
        ) - self.alpha * next_log_prob
        target_q_value = reward + (1 - done) * gamma * target_q_min  # if done, only the reward
        q_input = tf.concat([state, action], 1)

        with tf.GradientTape() as q1_tape:
            predicted_q_value1 = self.soft_q_net1(q_input)
            q_value_loss1 = tf.reduce_mean(tf.square(predicted_q_value1 - target_q_value))
        q1_grad = q1_tape.gradient(q_value_loss1, self.soft_q_net1.trainable_weights)
        self.soft_q_optimizer1.apply_gradients(zip(q1_grad, self.soft_q_net1.trainable_weights))

        with tf.GradientTape() as q2_tape:
            predicted_q_value2 = self.soft_q_net2(q_input)
            q_value_loss2 = tf.reduce_mean(tf.square(predicted_q_value2 - target_q_value))
        q2_grad = q2_tape.gradient(q_value_loss2, self.soft_q_net2.trainable_weights)
        self.soft_q_optimizer2.apply_gradients(zip(q2_grad, self.soft_q_net2.trainable_weights))

        # Training the policy (6.28)
        with tf.GradientTape() as p_tape:
            new_action, log_prob, z, mean, log_std = self.policy_net.evaluate(state)
            new_q_input = tf.concat([state, new_action], 1)
            if self.policy_loss == "min":  # implementation 1 (实现方式一)
                predicted_new_q_value = tf.minimum(self.soft_q_net1(new_q_input),
                                                   self.soft_q_net2(new_q_input))
            else:  # implementation 2 (实现方式二)
                predicted_new_q_value = self.soft_q_net1(new_q_input)
            policy_loss = tf.reduce_mean(self.alpha * log_prob - predicted_new_q_value)
        p_grad = p_tape.gradient(policy_loss, self.policy_net.trainable_weights)
        self.policy_optimizer.apply_gradients(zip(p_grad, self.policy_net.trainable_weights))

        # Updating alpha (6.29): the trade-off between exploration (entropy) and exploitation (Q)
        if auto_entropy is True:
            with tf.GradientTape() as alpha_tape:
                alpha_loss = -tf.reduce_mean(self.log_alpha * (log_prob + target_entropy))
            alpha_grad = alpha_tape.gradient(alpha_loss, [self.log_alpha])
            self.alpha_optimizer.apply_gradients(zip(alpha_grad, [self.log_alpha]))
            self.alpha = tf.math.exp(self.log_alpha)
        else:  # a fixed alpha
            self.alpha = self.fixed_alpha or 1.0  # the former is ours
            alpha_loss = 0.0

        # Soft updates of the targets
        self.target_soft_q_net1 = self.target_soft_update(self.soft_q_net1,
                                                          self.target_soft_q_net1, soft_tau)
        self.target_soft_q_net2 = self.target_soft_update(self.soft_q_net2,
                                                          self.target_soft_q_net2, soft_tau)
        return {"loss/q1": q_value_loss1, "loss/q2": q_value_loss2, "loss/policy": policy_loss,
                "loss/alpha": alpha_loss, "q/mean": tf.reduce_mean(predicted_q_value1),
                "alpha": self.alpha}

    def save(self, path=None):
        """Save all networks into the npz file `path`, or the usual one; returns its path."""
        return networks.save(self, args, path)

    def load(self, path=None):
        """Load all networks; raises UserError, with the agent unchanged, if the file is unfit."""
        networks.load(self, args, path)
        self.alpha = tf.math.exp(self.log_alpha)

    # Ours, for evaluations and pictures
    q_unit = "rewards + entropy"  # what Q sums

    @compiled
    def greedy_actions(self, states):
        """The greedy actions (N, action_dim) for states (N, state_dim), as get_action()'s."""
        mean, _ = self.policy_net.forward(states)
        return self.policy_net.action_range * tf.math.tanh(mean)

    def q_values(self, states, actions):
        """Soft Q values (N,) of actions (N, action_dim) in states (N, state_dim): the smaller."""
        q_input = tf.concat([states, actions], 1)
        return tf.minimum(self.soft_q_net1(q_input), self.soft_q_net2(q_input)).numpy()[:, 0]

    def layers(self):
        """The dense layers of the greedy policy, and those of each Q."""
        net, q_nets = self.policy_net, [self.soft_q_net1, self.soft_q_net2]
        return ([net.linear1, net.linear2, net.linear3, net.mean_linear],
                [[q_net.linear1, q_net.linear2, q_net.linear3] for q_net in q_nets])


if __name__ == "__main__":
    # the environment
    env = make(ENV_ID, RENDER, args)
    state_dim = env.observation_space.shape[0]
    action_dim = env.action_space.shape[0]
    action_range = env.action_space.high  # actions are in [-action_range, action_range]

    # seeds, for results that repeat
    env.seed(RANDOM_SEED)
    random.seed(RANDOM_SEED)
    np.random.seed(RANDOM_SEED)
    tf.random.set_seed(RANDOM_SEED)

    # the replay buffer
    replay_buffer = ReplayBuffer(REPLAY_BUFFER_SIZE)

    # the agent
    agent = SAC(state_dim, action_dim, replay_buffer, HIDDEN_DIM, action_range,
                SOFT_Q_LR, POLICY_LR, ALPHA_LR)
    t0 = time.time()

    if args.train:
        frame_idx = 0
        all_episode_reward = []
        with Training(agent, env, all_episode_reward, args) as training:  # ours: keeps its state
            if args.resume:
                frame_idx = training.resume()
            for episode in training(range(TRAIN_EPISODES)):
                state = env.reset()
                episode_reward = 0
                for step in range(MAX_STEPS):
                    if RENDER:
                        env.render()
                    if frame_idx > EXPLORE_STEPS:
                        action = agent.policy_net.get_action(state)
                    else:
                        action = agent.policy_net.sample_action()
                    next_state, reward, done, _ = env.step(action)
                    # done: the episode is over; env.terminal: by a real end, no time limit
                    replay_buffer.push(state, action, reward, next_state, env.terminal)
                    state = next_state
                    episode_reward += reward
                    frame_idx += 1

                    if len(replay_buffer) > max(BATCH_SIZE, LEARN_AFTER):
                        agent.update(BATCH_SIZE, reward_scale=REWARD_SCALE,
                                     auto_entropy=AUTO_ENTROPY, target_entropy=-1.0 * action_dim,
                                     gamma=GAMMA, soft_tau=SOFT_TAU,
                                     n_updates=UPDATE_ITR)  # for i in range(UPDATE_ITR)
                    if done:
                        break

                if episode == 0:
                    all_episode_reward.append(episode_reward)
                else:
                    all_episode_reward.append(all_episode_reward[-1] * 0.9 + episode_reward * 0.1)
                print(f"Training | Episode: {episode + 1}/{training.total} | Episode Reward: "
                      f"{episode_reward:.4f} | Running Time: {time.time() - t0:.4f}")

            agent.save()
            training.plot(all_episode_reward)  # plt.plot and plt.savefig: image/sac.png

    if args.test:
        agent.load()
        with Testing(agent, env, args) as env:  # ours: a window or a film, and the mean in the end
            for episode in range(TEST_EPISODES):
                state = env.reset()
                episode_reward = 0
                for step in range(MAX_STEPS):
                    env.render()
                    action = agent.policy_net.get_action(state, greedy=True)
                    state, reward, done, _ = env.step(action)
                    episode_reward += reward
                    if done:
                        break
                print(f"Testing | Episode: {episode + 1}/{TEST_EPISODES} | Episode Reward: "
                      f"{episode_reward:.4f} | Running Time: {time.time() - t0:.4f}")
