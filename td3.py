"""TD3 on Pendulum (section 6.5.3): twin delayed deep deterministic policy gradient.

Algorithm 6.27 of the chapter; Fujimoto, van Hoof and Meger, 2018, arXiv:1802.09477.

    python td3.py --train        learn, save the weights and the reward curve
    python td3.py --test         load the weights and play greedily
"""

from common import flags

ALG_NAME = "TD3"
ENV_ID = "Pendulum-v1"  # environment to learn: an id of Gym or Gymnasium, or module:ID
RANDOM_SEED = 2  # seed of everything random, in [0, 4294967295]
RENDER = False  # show the training in a window

TRAIN_EPISODES = 100  # episodes of training, in [1, inf)
TEST_EPISODES = 10  # episodes that --test plays, in [1, inf)
MAX_STEPS = 200  # steps after which an episode is cut, in [1, inf)
BATCH_SIZE = 64  # transitions in the batch of an update, in [1, 1e6]
EXPLORE_STEPS = 500  # steps at the start, and one more, with uniformly random actions, in [0, inf)

HIDDEN_DIM = 64  # units in each hidden layer, in [1, 4096]
Q_LR = 3e-4  # learning rate of the Q networks, in (0, inf)
POLICY_LR = 3e-4  # learning rate of the policy, in (0, inf)
GAMMA = 0.9  # discount factor, in [0, 1]
SOFT_TAU = 1e-2  # weight of the networks in a soft update of their targets, in (0, 1]
POLICY_TARGET_UPDATE_INTERVAL = 3  # updates of the Qs for one of policy and targets, in [1, inf)
EXPLORE_NOISE_SCALE = 1.0  # standard deviation of the exploration noise, in [0, inf)
EVAL_NOISE_SCALE = 0.5  # standard deviation of target policy smoothing's noise, in [0, inf)
REWARD_SCALE = 1.0  # factor of the rewards, standardised or not, in (0, inf)
REPLAY_BUFFER_SIZE = 500_000  # transitions that the replay buffer holds, in [1, 1e9]
UPDATE_ITR = 3  # updates after each step, in [1, inf)

# Ours; with these values, as the chapter has it:
POLICY_LOSS = "q1"  # Q that the policy maximises (min: the smaller of two), in {q1, min}
STANDARDISE_REWARDS = True  # standardise the rewards of a batch: mean 0, standard deviation 1
CLIP_ACTIONS = False  # clip noisy actions to the environment's range (errata E10)
LEARN_AFTER = 0  # learning starts with more transitions than this and than a batch, in [0, inf)
WEIGHT_INIT = "small"  # first weights, up to 0.003 or as the papers', in {small, fan_in}

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


class QNetwork(Model):
    """Q(s, a): [state, action] -> hidden -> hidden -> 1, through TensorLayer's dynamic API.

    num_inputs and num_actions are the sizes of a state and an action, hidden_dim the units in each
    hidden layer. Weights start uniform in [-init_w, init_w], or as in the papers (fan_in).
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
        """Q values (N, 1) of inputs (N, num_inputs + num_actions)."""
        x = self.linear1(input)
        x = self.linear2(x)
        x = self.linear3(x)
        return x


class PolicyNetwork(Model):
    """The deterministic policy: state -> three hidden layers -> tanh, times action_range.

    Sizes and init_w as for QNetwork; action_range is half the width of the action interval, a
    number or (num_actions,). With clip_actions, no noise carries an action beyond it.
    """

    def __init__(self, num_inputs, num_actions, hidden_dim, action_range=1.0, init_w=3e-3,
                 clip_actions=CLIP_ACTIONS, weight_init=WEIGHT_INIT):
        super().__init__()
        w_init = tf.random_uniform_initializer(-init_w, init_w)
        if weight_init == "fan_in":  # ours
            w_init = fan_in

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
        self(tf.zeros([1, num_inputs]), is_train=False)  # the extra call of the main part (E17)

    def forward(self, state):
        """Actions (N, num_actions) in [-1, 1] for states (N, num_inputs)."""
        x = self.linear1(state)
        x = self.linear2(x)
        x = self.linear3(x)
        output = tf.nn.tanh(self.output_linear(x))  # the output range is [-1, 1]
        return output

    def evaluate(self, state, eval_noise_scale):
        """Scaled actions (N, num_actions) for states (N, num_inputs), differentiable.

        Their noise, the target policy smoothing of (6.16), has the standard deviation
        eval_noise_scale and is clipped at twice this.
        """
        state = tf.cast(state, tf.float32)
        action = self.forward(state)
        action = self.action_range * action

        # noise
        normal = Normal(0, 1)
        eval_noise_clip = 2 * eval_noise_scale
        noise = normal.sample(action.shape) * eval_noise_scale
        noise = tf.clip_by_value(noise, -eval_noise_clip, eval_noise_clip)
        action = action + noise
        if self.clip_actions:  # ours
            action = tf.clip_by_value(action, -self.action_range, self.action_range)
        return action

    @compiled
    def get_action(self, state, explore_noise_scale, greedy=False):
        """The action (num_actions,) for one state (num_inputs,), with noise unless greedy."""
        action = self.forward([state])
        action = self.action_range * action[0]
        if greedy:
            return action
        # noise
        normal = Normal(0, 1)
        noise = normal.sample(action.shape) * explore_noise_scale
        action += noise
        if self.clip_actions:  # ours
            action = tf.clip_by_value(action, -self.action_range, self.action_range)
        return action

    def sample_action(self):
        """A uniformly random action (num_actions,)."""
        a = np.random.uniform(-1, 1, [self.num_actions])
        return self.action_range * a


class TD3:
    """Twin delayed DDPG: two Q networks, one policy, and a target of each.

    It learns from replay_buffer. Sizes and action_range are as for PolicyNetwork. The policy and
    all targets are updated at every policy_target_update_interval-th update; q_lr and policy_lr are
    Adam's. The rest is ours: as the constants of these names. `losses` are those of the last
    update.
    """

    def __init__(self, state_dim, action_dim, replay_buffer, hidden_dim, action_range,
                 policy_target_update_interval=1, q_lr=3e-4, policy_lr=3e-4,
                 policy_loss=POLICY_LOSS, standardise_rewards=STANDARDISE_REWARDS,
                 clip_actions=CLIP_ACTIONS, weight_init=WEIGHT_INIT):
        self.replay_buffer = replay_buffer
        # ours
        self.policy_loss, self.standardise_rewards = policy_loss, standardise_rewards
        check_choice("policy_loss", policy_loss, "q1", "min")
        check_choice("weight_init", weight_init, "small", "fan_in")
        q_options = {"weight_init": weight_init}
        options = {"clip_actions": clip_actions, "weight_init": weight_init}
        self.losses = None

        # all networks
        self.q_net1 = QNetwork(state_dim, action_dim, hidden_dim, **q_options)
        self.q_net2 = QNetwork(state_dim, action_dim, hidden_dim, **q_options)
        self.target_q_net1 = QNetwork(state_dim, action_dim, hidden_dim, **q_options)
        self.target_q_net2 = QNetwork(state_dim, action_dim, hidden_dim, **q_options)
        self.policy_net = PolicyNetwork(state_dim, action_dim, hidden_dim, action_range, **options)
        self.target_policy_net = PolicyNetwork(state_dim, action_dim, hidden_dim, action_range,
                                               **options)
        print("Q Network (1,2): ", self.q_net1)
        print("Policy Network: ", self.policy_net)

        # targets start as copies
        self.target_q_net1 = self.target_ini(self.q_net1, self.target_q_net1)
        self.target_q_net2 = self.target_ini(self.q_net2, self.target_q_net2)
        self.target_policy_net = self.target_ini(self.policy_net, self.target_policy_net)

        # training mode
        self.q_net1.train()
        self.q_net2.train()
        self.target_q_net1.train()
        self.target_q_net2.train()
        self.policy_net.train()
        self.target_policy_net.train()

        self.update_cnt = 0
        self.policy_target_update_interval = policy_target_update_interval

        self.q_optimizer1 = tf.optimizers.Adam(q_lr)
        self.q_optimizer2 = tf.optimizers.Adam(q_lr)
        self.policy_optimizer = tf.optimizers.Adam(policy_lr)
        # ours: their moments are there before the first update, for XLA and --resume
        self.q_optimizer1.build(self.q_net1.trainable_weights)
        self.q_optimizer2.build(self.q_net2.trainable_weights)
        self.policy_optimizer.build(self.policy_net.trainable_weights)

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
        """Update all networks n_updates times in one call, each time from a new batch.

        eval_noise_scale is the standard deviation of the noise of target policy smoothing (6.16),
        reward_scale a factor of the rewards, standardised or not, gamma the discount factor,
        soft_tau the share of the networks in the soft updates of their targets. A ValueError if
        fewer than batch_size transitions are stored.
        """
        batches = []
        for i in range(n_updates):  # the loop that is printed around update()
            self.update_cnt += 1

            # sample a batch
            state, action, reward, next_state, done = self.replay_buffer.sample(batch_size)
            policy_turn = self.update_cnt % self.policy_target_update_interval == 0
            batches.append((state, action, reward, next_state, done, policy_turn))
        self.losses = self.update_networks.for_each(batches, eval_noise_scale, reward_scale, gamma,
                                                    soft_tau)

    # The printed body goes on here, compiled; what may change at each call is an argument.
    @compiled
    def update_networks(self, state, action, reward, next_state, done, policy_turn,
                        eval_noise_scale, reward_scale, gamma, soft_tau):
        """One update from one batch; returns what TensorBoard shows, by name."""
        reward = reward[:, np.newaxis]  # expand dimension
        done = done[:, np.newaxis]

        # Technique three (技术三), target policy smoothing: noise on the target action (6.16)
        new_next_action = self.target_policy_net.evaluate(
            next_state, eval_noise_scale=eval_noise_scale
        )  # clipped normal noise

        # rewards standardised over the batch; 1e-6 for batches of equal rewards
        if self.standardise_rewards:
            reward = reward_scale * (reward - tf.reduce_mean(reward, axis=0)) / (
                tf.math.reduce_std(reward, axis=0) + 1e-6)
        else:  # ours
            reward = reward_scale * reward

        # Training the Q functions
        target_q_input = tf.concat([next_state, new_next_action], 1)
        # Technique one (技术一), clipped double Q-learning: the smaller target value (6.14)
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

        losses = {"loss/q1": q_value_loss1, "loss/q2": q_value_loss2,
                  "q/mean": tf.reduce_mean(predicted_q_value1)}

        # Training the policy
        # Technique two (技术二), delayed policy updates: not at every update of the Qs
        if policy_turn:
            with tf.GradientTape() as p_tape:
                new_action = self.policy_net.evaluate(state, eval_noise_scale=0.0)  # no noise
                new_q_input = tf.concat([state, new_action], 1)
                if self.policy_loss == "min":  # implementation 1 (实现方法一)
                    predicted_new_q_value = tf.minimum(self.q_net1(new_q_input),
                                                       self.q_net2(new_q_input))
                else:  # implementation 2 (实现方法二)
                    predicted_new_q_value = self.q_net1(new_q_input)
                policy_loss = -tf.reduce_mean(predicted_new_q_value)
            p_grad = p_tape.gradient(policy_loss, self.policy_net.trainable_weights)
            self.policy_optimizer.apply_gradients(zip(p_grad, self.policy_net.trainable_weights))
            losses["loss/policy"] = policy_loss

            # Soft updates of the targets
            self.target_q_net1 = self.target_soft_update(self.q_net1, self.target_q_net1, soft_tau)
            self.target_q_net2 = self.target_soft_update(self.q_net2, self.target_q_net2, soft_tau)
            self.target_policy_net = self.target_soft_update(self.policy_net,
                                                             self.target_policy_net, soft_tau)
        return losses

    def save(self, path=None):
        """Save all networks into the npz file `path`, or the usual one; returns its path."""
        return networks.save(self, args, path)

    def load(self, path=None):
        """Load all networks; raises UserError, with the agent unchanged, if the file is unfit."""
        networks.load(self, args, path)

    # Ours, for evaluations and pictures
    q_unit = "rewards"  # what Q sums

    @compiled
    def greedy_actions(self, states):
        """The greedy actions (N, action_dim) for states (N, state_dim), as get_action()'s."""
        return self.policy_net.action_range * self.policy_net.forward(states)

    def q_values(self, states, actions):
        """Q values (N,) of actions (N, action_dim) in states (N, state_dim): the smaller."""
        q_input = tf.concat([states, actions], 1)
        return tf.minimum(self.q_net1(q_input), self.q_net2(q_input)).numpy()[:, 0]

    def layers(self):
        """The dense layers of the greedy policy, and those of each Q."""
        net, q_nets = self.policy_net, [self.q_net1, self.q_net2]
        return ([net.linear1, net.linear2, net.linear3, net.output_linear],
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
    agent = TD3(state_dim, action_dim, replay_buffer, HIDDEN_DIM, action_range,
                POLICY_TARGET_UPDATE_INTERVAL, Q_LR, POLICY_LR)
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
                        action = agent.policy_net.get_action(state, EXPLORE_NOISE_SCALE)
                    else:
                        action = agent.policy_net.sample_action()
                    next_state, reward, done, _ = env.step(action)
                    # done: the episode is over; env.terminal: by a real end, no time limit
                    replay_buffer.push(state, action, reward, next_state, env.terminal)
                    state = next_state
                    episode_reward += reward
                    frame_idx += 1

                    if len(replay_buffer) > max(BATCH_SIZE, LEARN_AFTER):
                        agent.update(BATCH_SIZE, EVAL_NOISE_SCALE, REWARD_SCALE, GAMMA, SOFT_TAU,
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
            training.plot(all_episode_reward)  # plt.plot and plt.savefig: image/td3.png

    if args.test:
        agent.load()
        with Testing(agent, env, args) as env:  # ours: a window or a film, and the mean in the end
            for episode in range(TEST_EPISODES):
                state = env.reset()
                episode_reward = 0
                for step in range(MAX_STEPS):
                    env.render()
                    action = agent.policy_net.get_action(state, EXPLORE_NOISE_SCALE, greedy=True)
                    state, reward, done, _ = env.step(action)
                    episode_reward += reward
                    if done:
                        break
                print(f"Testing | Episode: {episode + 1}/{TEST_EPISODES} | Episode Reward: "
                      f"{episode_reward:.4f} | Running Time: {time.time() - t0:.4f}")
