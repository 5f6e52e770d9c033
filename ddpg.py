"""DDPG on Pendulum (section 6.5.2): deep deterministic policy gradient.

Algorithm 6.26 of the chapter; Lillicrap et al., 2016, arXiv:1509.02971.

    python ddpg.py --train       learn, save the weights and the reward curve
    python ddpg.py --test        load the weights and play greedily
"""

from common import flags

ALG_NAME = "DDPG"
ENV_ID = "Pendulum-v1"  # environment to learn: an id of Gym or Gymnasium, or module:ID
RANDOM_SEED = 2  # seed of everything random, in [0, 4294967295]
RENDER = False  # show the training in a window

TRAIN_EPISODES = 100  # episodes of training, in [1, inf)
TEST_EPISODES = 10  # episodes that --test plays, in [1, inf)
MAX_STEPS = 200  # steps after which an episode is cut, in [1, inf)

LR_A = 1e-3  # learning rate of the actor, in (0, inf)
LR_C = 2e-3  # learning rate of the critic, in (0, inf)
GAMMA = 0.9  # discount factor, in [0, 1]
TAU = 0.01  # weight of the networks in a soft update of their targets, in (0, 1]
MEMORY_CAPACITY = 10000  # transitions that the memory holds, in [1, 1e9]
BATCH_SIZE = 32  # transitions in the batch of an update, in [1, 1e6]
HIDDEN_DIM = 64  # units in each hidden layer, in [1, 4096]
UPDATE_ITR = 1  # updates after each step, in [1, inf)
VAR = 2.0  # standard deviation of the exploration noise at the start, in [0, inf)
VAR_DECAY = 0.9995  # factor of the exploration noise's deviation at each update, in (0, 1]

# Ours; with these values, as the chapter has it:
NOISE = "gaussian"  # kind of exploration noise (ou: Ornstein-Uhlenbeck), in {gaussian, ou}
OU_THETA = 0.15  # how fast Ornstein-Uhlenbeck noise returns to zero, in (0, inf)
EXPLORE_STEPS = 0  # steps at the start with uniformly random actions, in [0, inf)
REWARD_SCALE = 1.0  # factor of the rewards, in (0, inf)
LEARN_AFTER = 10000  # learning starts with more transitions than this, in [0, inf)
WEIGHT_INIT = "normal"  # first weights, N(0, 0.3) or as the papers', in {normal, fan_in}

args = flags.parse(globals())  # sets each to its flag's value, before the long imports

import random
import time

import numpy as np
import tensorflow as tf
import tensorlayer as tl

from common import networks
from common.engine.plain import compiled
from common.networks import check_choice, fan_in
from common.noise import OrnsteinUhlenbeck
from common.tasks.making import make
from common.training.testing import Testing
from common.training.training import Training


class DDPG:
    """Deep deterministic policy gradient: an actor, a critic, and a moving average of each.

    action_dim and state_dim are the sizes of an action and a state, action_range is half the width
    of the action interval, a number or (action_dim,). noise and weight_init are ours: as the
    constants of these names. All else is read off the constants, as in print: when the agent is
    made or a method called, GAMMA and REWARD_SCALE when its update is compiled. `losses` are those
    of the last update.
    """

    def __init__(self, action_dim, state_dim, action_range, noise=NOISE, weight_init=WEIGHT_INIT):
        # a row: state, action, reward, next state, done
        self.memory = np.zeros((MEMORY_CAPACITY, state_dim * 2 + action_dim + 2), dtype=np.float32)
        self.pointer = 0
        action_range = np.float32(action_range)
        self.action_dim, self.state_dim, self.action_range = action_dim, state_dim, action_range
        self.var = VAR

        W_init = tf.random_normal_initializer(mean=0, stddev=0.3)
        b_init = tf.constant_initializer(0.1)
        # ours
        if weight_init == "fan_in":
            W_init, b_init = fan_in, tf.constant_initializer(0.0)
        check_choice("weight_init", weight_init, "normal", "fan_in")
        check_choice("noise", noise, "gaussian", "ou")
        self.noise, self.ou = noise, OrnsteinUhlenbeck(action_dim, OU_THETA)
        self.losses = None

        def get_actor(input_state_shape):
            """The actor: state -> hidden -> hidden -> tanh, times the action range."""
            input_layer = tl.layers.Input(input_state_shape, name="A_input")
            layer = tl.layers.Dense(n_units=HIDDEN_DIM, act=tf.nn.relu, W_init=W_init,
                                    b_init=b_init, name="A_l1")(input_layer)
            layer = tl.layers.Dense(n_units=HIDDEN_DIM, act=tf.nn.relu, W_init=W_init,
                                    b_init=b_init, name="A_l2")(layer)
            layer = tl.layers.Dense(n_units=action_dim, act=tf.nn.tanh, W_init=W_init,
                                    b_init=b_init, name="A_a")(layer)
            layer = tl.layers.Lambda(lambda x: action_range * x)(layer)
            return tl.models.Model(inputs=input_layer, outputs=layer)

        def get_critic(input_state_shape, input_action_shape):
            """The critic: state and action -> hidden -> hidden -> Q."""
            state_input = tl.layers.Input(input_state_shape, name="C_s_input")
            action_input = tl.layers.Input(input_action_shape, name="C_a_input")
            layer = tl.layers.Concat(1)([state_input, action_input])
            layer = tl.layers.Dense(n_units=HIDDEN_DIM, act=tf.nn.relu, W_init=W_init,
                                    b_init=b_init, name="C_l1")(layer)
            layer = tl.layers.Dense(n_units=HIDDEN_DIM, act=tf.nn.relu, W_init=W_init,
                                    b_init=b_init, name="C_l2")(layer)
            layer = tl.layers.Dense(n_units=1, W_init=W_init, b_init=b_init, name="C_out")(layer)
            return tl.models.Model(inputs=[state_input, action_input], outputs=layer)

        # the networks
        self.actor = get_actor([None, state_dim])
        self.critic = get_critic([None, state_dim], [None, action_dim])
        self.actor.train()
        self.critic.train()

        def copy_para(from_model, to_model):
            """Copy one network's weights into another."""
            for i, j in zip(from_model.trainable_weights, to_model.trainable_weights):
                j.assign(i)

        # targets start as copies
        self.actor_target = get_actor([None, state_dim])
        copy_para(self.actor, self.actor_target)
        self.actor_target.eval()

        self.critic_target = get_critic([None, state_dim], [None, action_dim])
        copy_para(self.critic, self.critic_target)
        self.critic_target.eval()

        self.ema = tf.train.ExponentialMovingAverage(decay=1 - TAU)  # soft replacement
        self.ema.apply(self.actor.trainable_weights + self.critic.trainable_weights)  # ours: E11

        self.actor_opt = tf.optimizers.Adam(LR_A)
        self.critic_opt = tf.optimizers.Adam(LR_C)
        # ours: their moments are there before the first update, for XLA and --resume
        self.actor_opt.build(self.actor.trainable_weights)
        self.critic_opt.build(self.critic.trainable_weights)

    def ema_update(self):
        """Move the targets towards the networks, by TAU (6.7, 6.8)."""
        paras = self.actor.trainable_weights + self.critic.trainable_weights
        self.ema.apply(paras)
        for i, j in zip(self.actor_target.trainable_weights +
                        self.critic_target.trainable_weights, paras):
            i.assign(self.ema.average(j))

    def get_action(self, s, greedy=False):
        """The action (action_dim,) for one state (state_dim,), with noise unless greedy."""
        a = self.greedy_actions(np.array([s], dtype=np.float32))[0]  # self.actor, compiled
        if greedy:
            return a
        if self.noise == "ou":  # ours, the chapter's alternative (6.1)
            return np.clip(a + self.var * self.ou.sample(), -self.action_range, self.action_range)
        # noise, so that the actions explore
        return np.clip(np.random.normal(a, self.var), -self.action_range, self.action_range)

    def sample_action(self):
        """A uniformly random action (action_dim,)."""
        return self.action_range * np.random.uniform(-1, 1, [self.action_dim])

    def learn(self, n_updates=1):
        """Update critic, actor and targets n_updates times in one call, each from a new batch.

        The batches are drawn from the whole memory or, before it is full, from what is stored.
        """
        batches = []
        for i in range(n_updates):  # ours
            self.var *= VAR_DECAY
            indices = np.random.choice(min(self.pointer, MEMORY_CAPACITY), size=BATCH_SIZE)
            bt = self.memory[indices, :]
            batches.append((bt,))
        self.losses = self.update_networks.for_each(batches)

    # The printed body goes on here, compiled; what may change at each call is an argument.
    @compiled
    def update_networks(self, bt):
        """One update from one batch; returns what TensorBoard shows, by name."""
        bs = bt[:, :self.state_dim]
        ba = bt[:, self.state_dim:self.state_dim + self.action_dim]
        br = bt[:, -self.state_dim - 2:-self.state_dim - 1]
        bs_ = bt[:, -self.state_dim - 1:-1]
        bd = bt[:, -1:]

        # the critic: squared error against the Bellman target (6.3, 6.4)
        with tf.GradientTape() as tape:
            a_ = self.actor_target(bs_)
            q_ = self.critic_target([bs_, a_])
            y = REWARD_SCALE * br + GAMMA * (1 - bd) * q_
            q = self.critic([bs, ba])
            td_error = tf.reduce_mean(tf.square(y - q))
        c_grads = tape.gradient(td_error, self.critic.trainable_weights)
        self.critic_opt.apply_gradients(zip(c_grads, self.critic.trainable_weights))

        q_mean = tf.reduce_mean(q)  # ours

        # the actor: up the critic's gradient (6.6)
        with tf.GradientTape() as tape:
            a = self.actor(bs)
            q = self.critic([bs, a])
            a_loss = -tf.reduce_mean(q)  # maximise Q
        a_grads = tape.gradient(a_loss, self.actor.trainable_weights)
        self.actor_opt.apply_gradients(zip(a_grads, self.actor.trainable_weights))
        self.ema_update()
        return {"loss/critic": td_error, "loss/actor": a_loss, "q/mean": q_mean}

    def store_transition(self, s, a, r, s_, done=False):
        """Store one transition; the oldest is overwritten once the memory is full.

        s, s_: (state_dim,) observations before and after; a: (action_dim,) or a number; r: reward;
        done: true only for a real terminal, after which nothing can be earned.
        """
        transition = np.hstack((s, a, [r], s_, done))
        index = self.pointer % MEMORY_CAPACITY
        self.memory[index, :] = transition
        self.pointer += 1

    def save(self, path=None):
        """Save all networks into the npz file `path`, or the usual one; returns its path."""
        return networks.save(self, args, path)

    def load(self, path=None):
        """Load all networks; raises UserError, with the agent unchanged, if the file is unfit."""
        networks.load(self, args, path)
        # ours: the averages are what the targets hold
        for i, j in zip(self.actor_target.trainable_weights + self.critic_target.trainable_weights,
                        self.actor.trainable_weights + self.critic.trainable_weights):
            self.ema.average(j).assign(i)

    # Ours, for evaluations and pictures
    q_unit = "rewards"  # what Q sums

    @compiled
    def greedy_actions(self, states):
        """The greedy actions (N, action_dim) for states (N, state_dim), as get_action()'s."""
        return self.actor(states)

    def q_values(self, states, actions):
        """Q values (N,) of actions (N, action_dim) in states (N, state_dim)."""
        return self.critic([states, actions]).numpy()[:, 0]

    def layers(self):
        """The dense layers of the greedy policy, and those of each Q."""
        dense = [[layer for layer in net.all_layers if layer.all_weights]
                 for net in (self.actor, self.critic)]
        return dense[0], dense[1:]


if __name__ == "__main__":
    # the environment
    env = make(ENV_ID, RENDER, args)

    # seeds, for results that repeat
    env.seed(RANDOM_SEED)
    random.seed(RANDOM_SEED)
    np.random.seed(RANDOM_SEED)
    tf.random.set_seed(RANDOM_SEED)

    state_dim = env.observation_space.shape[0]
    action_dim = env.action_space.shape[0]
    action_range = env.action_space.high  # actions are in [-action_range, action_range]

    agent = DDPG(action_dim, state_dim, action_range)
    t0 = time.time()

    if args.train:
        all_episode_reward = []
        with Training(agent, env, all_episode_reward, args) as training:  # ours: keeps its state
            if args.resume:
                training.resume()
            for episode in training(range(TRAIN_EPISODES)):
                state = env.reset()
                agent.ou.reset()  # ours: each episode's noise starts anew (algorithm 6.26)
                episode_reward = 0
                for step in range(MAX_STEPS):
                    if RENDER:
                        env.render()
                    # with exploration noise
                    action = agent.get_action(state)
                    if agent.pointer < EXPLORE_STEPS:  # ours
                        action = agent.sample_action()
                    state_, reward, done, info = env.step(action)
                    # done: the episode is over; env.terminal: by a real end, no time limit
                    agent.store_transition(state, action, reward, state_, env.terminal)

                    if agent.pointer > LEARN_AFTER:
                        agent.learn(n_updates=UPDATE_ITR)

                    state = state_
                    episode_reward += reward
                    if done:
                        break

                if episode == 0:
                    all_episode_reward.append(episode_reward)
                else:
                    all_episode_reward.append(all_episode_reward[-1] * 0.9 + episode_reward * 0.1)
                print(f"Training | Episode: {episode + 1}/{training.total} | Episode Reward: "
                      f"{episode_reward:.4f} | Running Time: {time.time() - t0:.4f}")

            agent.save()
            training.plot(all_episode_reward)  # plt.plot and plt.savefig: image/ddpg.png

    if args.test:
        agent.load()
        with Testing(agent, env, args) as env:  # ours: a window or a film, and the mean in the end
            for episode in range(TEST_EPISODES):
                state = env.reset()
                episode_reward = 0
                for step in range(MAX_STEPS):
                    env.render()
                    state, reward, done, info = env.step(agent.get_action(state, greedy=True))
                    episode_reward += reward
                    if done:
                        break
                print(f"Testing | Episode: {episode + 1}/{TEST_EPISODES} | Episode Reward: "
                      f"{episode_reward:.4f} | Running Time: {time.time() - t0:.4f}")
