"""DDPG on Pendulum (section 6.5.2): deep deterministic policy gradient.

Algorithm 6.26 of the chapter; Lillicrap et al., 2016, arXiv:1509.02971.

    python ddpg.py --train       learn, save the weights and the reward curve
    python ddpg.py --test        load the weights and play greedily
"""

from common import arguments

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
NOISE = "gaussian"  # kind of exploration noise (ou: Ornstein-Uhlenbeck), in {gaussian, ou}
VAR = 2.0  # standard deviation of the exploration noise at the start, in [0, inf)
OU_THETA = 0.15  # how fast Ornstein-Uhlenbeck noise returns to zero, in (0, inf)
VAR_DECAY = 0.9995  # factor of the exploration noise's deviation at each update, in (0, 1]

# Ours; with these values, as the chapter has it:
EXPLORE_STEPS = 0  # steps at the start with uniformly random actions, in [0, inf)
LEARN_AFTER = 0  # learning starts with more transitions than this (0: a full memory), in [0, inf)
EXPLORE_HOLD = 1  # steps for which a uniformly random action is held, in [1, inf)
REWARD_SCALE = 1.0  # factor of the rewards, in (0, inf)
WEIGHT_INIT = "normal"  # first weights, N(0, 0.3) or as the papers', in {normal, fan_in}

args = arguments.parse(__file__, __name__)  # before the long imports: --help answers at once
globals().update(args.constants)  # as flags and presets have them

import itertools
import random
import time

import numpy as np
import tensorflow as tf
import tensorlayer as tl

from common import networks
from common.compiled import Compiler, compiled
from common.making import make
from common.networks import check_choice, fan_in
from common.noise import OrnsteinUhlenbeck
from common.replay_buffer import check_sizes
from common.testing import Testing
from common.training import Training


class DDPG:
    """Deep deterministic policy gradient: an actor, a critic, and a moving average of each.

    action_dim and state_dim are the sizes of an action and a state, action_range is half the width
    of the action interval, a number or (action_dim,). The rest is ours: as the constants and flags
    of these names, by default with their values.
    """

    count = itertools.count()  # TensorLayer wants another name for each model of a process

    def __init__(self, action_dim, state_dim, action_range, lr_a=LR_A, lr_c=LR_C, gamma=GAMMA,
                 tau=TAU, memory_capacity=MEMORY_CAPACITY, batch_size=BATCH_SIZE,
                 hidden_dim=HIDDEN_DIM, noise=NOISE, var=VAR, ou_theta=OU_THETA,
                 var_decay=VAR_DECAY, reward_scale=REWARD_SCALE, weight_init=WEIGHT_INIT,
                 eager=args.eager):
        # a row: state, action, reward, next state, done
        width = state_dim * 2 + action_dim + 2
        self.memory = np.zeros((memory_capacity, width), np.float32)
        self.pointer = 0
        self.action_dim, self.state_dim = action_dim, state_dim
        self.action_range = action_range = np.float32(action_range)
        self.gamma, self.tau, self.reward_scale = gamma, tau, reward_scale
        self.noise, self.var, self.var_decay, self.batch_size = noise, var, var_decay, batch_size
        self.generator = np.random.default_rng(np.random.randint(2**31))  # of noise and batches
        self.ou = OrnsteinUhlenbeck(action_dim, ou_theta, generator=self.generator)

        normal = tf.random_normal_initializer(mean=0, stddev=0.3), tf.constant_initializer(0.1)
        W_init, b_init = {"normal": normal,
                          "fan_in": (fan_in, tf.constant_initializer(0.0))}[weight_init]
        number = next(DDPG.count)

        def get_actor(input_state_shape, name=""):
            """The actor: state -> hidden -> hidden -> tanh, times the action range."""
            input_layer = tl.layers.Input(input_state_shape, name="A_input")
            layer = tl.layers.Dense(n_units=hidden_dim, act=tf.nn.relu, W_init=W_init,
                                    b_init=b_init, name="A_l1")(input_layer)
            layer = tl.layers.Dense(n_units=hidden_dim, act=tf.nn.relu, W_init=W_init,
                                    b_init=b_init, name="A_l2")(layer)
            layer = tl.layers.Dense(n_units=action_dim, act=tf.nn.tanh, W_init=W_init,
                                    b_init=b_init, name="A_a")(layer)
            layer = tl.layers.Lambda(lambda x: action_range * x)(layer)
            return tl.models.Model(inputs=input_layer, outputs=layer, name=f"Actor{name}_{number}")

        def get_critic(input_state_shape, input_action_shape, name=""):
            """The critic: state and action -> hidden -> hidden -> Q."""
            state_input = tl.layers.Input(input_state_shape, name="C_s_input")
            action_input = tl.layers.Input(input_action_shape, name="C_a_input")
            layer = tl.layers.Concat(1)([state_input, action_input])
            layer = tl.layers.Dense(n_units=hidden_dim, act=tf.nn.relu, W_init=W_init,
                                    b_init=b_init, name="C_l1")(layer)
            layer = tl.layers.Dense(n_units=hidden_dim, act=tf.nn.relu, W_init=W_init,
                                    b_init=b_init, name="C_l2")(layer)
            layer = tl.layers.Dense(n_units=1, W_init=W_init, b_init=b_init, name="C_out")(layer)
            return tl.models.Model(inputs=[state_input, action_input], outputs=layer,
                                   name=f"Critic{name}_{number}")

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
        self.actor_target = get_actor([None, state_dim], name="_target")
        copy_para(self.actor, self.actor_target)
        self.actor_target.eval()

        self.critic_target = get_critic([None, state_dim], [None, action_dim], name="_target")
        copy_para(self.critic, self.critic_target)
        self.critic_target.eval()

        self.averages = []  # of the moving average, see start_averages()
        self.actor_opt = tf.optimizers.Adam(lr_a)
        self.critic_opt = tf.optimizers.Adam(lr_c)

        # Ours: losses of the last update, with mean Q; what a resumed training goes on with
        # beside the variables; compilation
        self.losses, self.loss_names = None, ["loss/critic", "loss/actor", "q/mean"]
        self.state_names = ["pointer", "stored", "var", "generator", "ou.x"]
        self.compiler = Compiler(self, eager, {"actor_opt": "actor", "critic_opt": "critic"},
                                 self.start_averages, ("gamma", "tau", "reward_scale"))

    def start_averages(self):
        """Ours: start the moving averages from the targets, also where a network is replaced."""
        # The first apply() creates the averages: here, where they equal the targets.
        self.ema = tf.train.ExponentialMovingAverage(decay=1 - self.tau)
        paras = self.actor.trainable_weights + self.critic.trainable_weights
        self.ema.apply(paras)
        self.averages = [self.ema.average(para) for para in paras]
        targets = self.actor_target.trainable_weights + self.critic_target.trainable_weights
        for average, target in zip(self.averages, targets):
            average.assign(target)

    def ema_update(self):
        """Move the targets towards the networks, by TAU (6.7, 6.8)."""
        paras = self.actor.trainable_weights + self.critic.trainable_weights
        self.ema.apply(paras)
        for i, j in zip(self.actor_target.trainable_weights +
                        self.critic_target.trainable_weights, paras):
            i.assign(self.ema.average(j))

    @compiled
    def act(self, states):
        """Ours: the actor, compiled, from and to NumPy arrays."""
        return self.actor(states)

    def reset_noise(self):
        """Start the noise process anew, as algorithm 6.26 does for each episode."""
        self.ou.reset()

    def get_action(self, s, greedy=False):
        """The action (action_dim,) for one state (state_dim,), with noise unless greedy."""
        a = self.act(np.array([s], dtype=np.float32))[0]
        if greedy:
            return a
        check_choice("noise", self.noise, "gaussian", "ou")
        if self.noise == "ou":
            noise = self.ou.sample()
        else:
            noise = self.generator.standard_normal(self.action_dim)
        return np.clip(a + self.var * noise, -self.action_range, self.action_range)

    def sample_action(self):
        """A uniformly random action (action_dim,)."""
        return self.action_range * self.generator.uniform(-1, 1, self.action_dim)

    def learn(self, n_updates=1):
        """Update critic, actor and targets n_updates times in one call, each from a new batch.

        The batches are drawn from the whole memory, or from what is stored of it; where that
        is nothing, a ValueError says so.
        """
        size = len(self.stored)
        if not size:
            raise ValueError("the memory is empty: call store_transition() before learn()")
        self.var *= self.var_decay**n_updates
        indices = self.generator.integers(size, size=(n_updates, self.batch_size))
        # The printed body goes on in _update_from(), which is compiled.
        self.losses = self.compiler.for_each(self._update_from, self.memory[indices],
                                             (None,) * n_updates)

    def _update_from(self, bt, _):
        """One update: the body of the chapter's learn() after sampling, algorithm 6.26."""
        bs = bt[:, :self.state_dim]
        ba = bt[:, self.state_dim:self.state_dim + self.action_dim]
        br = bt[:, -self.state_dim - 2:-self.state_dim - 1]
        bs_ = bt[:, -self.state_dim - 1:-1]
        bd = bt[:, -1:]

        # the critic: squared error against the Bellman target (6.3, 6.4)
        with tf.GradientTape() as tape:
            a_ = self.actor_target(bs_)
            q_ = self.critic_target([bs_, a_])
            y = self.reward_scale * br + self.gamma * (1 - bd) * q_
            q = self.critic([bs, ba])
            td_error = tf.reduce_mean(tf.square(y - q))
        q_mean = tf.reduce_mean(q)
        c_grads = tape.gradient(td_error, self.critic.trainable_weights)
        self.critic_opt.apply_gradients(zip(c_grads, self.critic.trainable_weights))

        # the actor: up the critic's gradient (6.6)
        with tf.GradientTape() as tape:
            a = self.actor(bs)
            q = self.critic([bs, a])
            a_loss = -tf.reduce_mean(q)  # maximise Q
        a_grads = tape.gradient(a_loss, self.actor.trainable_weights)
        self.actor_opt.apply_gradients(zip(a_grads, self.actor.trainable_weights))
        self.ema_update()
        return tf.stack([td_error, a_loss, q_mean])

    def store_transition(self, s, a, r, s_, done=False):
        """Store one transition; the oldest is overwritten once the memory is full.

        s, s_: (state_dim,) observations before and after; a: (action_dim,) or a number; r: reward;
        done: true only for a real terminal, after which nothing can be earned. A ValueError names
        what has another size.
        """
        check_sizes(self.state_dim, self.action_dim, s, a, r, s_, done)
        transition = np.hstack((s, a, r, s_, done))
        index = self.pointer % len(self.memory)
        self.memory[index, :] = transition
        self.pointer += 1

    def save(self, path=None):
        """Save all networks into the npz file `path`, or the usual one; returns its path."""
        return networks.save(self, args, path)

    def load(self, path=None):
        """Load all networks; raises UserError, with the agent unchanged, if the file is unfit."""
        networks.load(self, args, path)
        self.start_averages()

    # Ours, for evaluations, pictures and --resume

    def greedy_actions(self, states):
        """The actions (N, action_dim) that get_action() gives for states (N, state_dim), greedy."""
        return self.act(states)

    def q_values(self, states, actions):
        """Q values (N,) of actions (N, action_dim) in states (N, state_dim)."""
        return self.critic([states, actions]).numpy()[:, 0]

    @property
    def stored(self):
        """The rows of the memory that have been written; as many can be put there again."""
        return self.memory[: self.pointer]

    @stored.setter
    def stored(self, rows):
        self.memory[: len(rows)] = rows


if __name__ == "__main__":
    env = make(ENV_ID, RENDER, unit_actions=args.unit_actions)
    state_dim = env.observation_space.shape[0]
    action_dim = env.action_space.shape[0]
    action_range = env.action_space.high  # actions are in [-action_range, action_range]

    # seeds, for results that repeat
    env.seed(RANDOM_SEED)
    random.seed(RANDOM_SEED)
    np.random.seed(RANDOM_SEED)
    tf.random.set_seed(RANDOM_SEED)

    agent = DDPG(action_dim, state_dim, action_range)
    t0 = time.time()

    if args.train:
        # Ours: Training evaluates, saves and goes on where a training was stopped. However its
        # block ends, it calls agent.save() and plots all_episode_reward into image/ddpg.png.
        with Training(agent, env, args) as training:
            all_episode_reward = training.all_episode_reward  # [], unless resumed
            frame_idx = training.steps  # 0, unless resumed
            for episode in training.episodes():  # TRAIN_EPISODES, or as many as --steps takes
                state = env.reset()
                agent.reset_noise()
                episode_reward = 0
                for step in range(MAX_STEPS):
                    if RENDER:
                        env.render()
                    if frame_idx >= EXPLORE_STEPS:
                        action = agent.get_action(state)  # with exploration noise
                    elif step % EXPLORE_HOLD == 0:
                        action = agent.sample_action()
                    state_, reward, done, info = env.step(action)
                    agent.store_transition(state, action, reward, state_, done)

                    if agent.pointer > (LEARN_AFTER or MEMORY_CAPACITY):
                        agent.learn(UPDATE_ITR)

                    state = state_
                    episode_reward += reward
                    frame_idx += 1
                    if done or info["TimeLimit.truncated"]:
                        break

                if episode == 0:
                    all_episode_reward.append(episode_reward)
                else:
                    all_episode_reward.append(all_episode_reward[-1] * 0.9 + episode_reward * 0.1)
                print(f"Training | Episode: {training.number(frame_idx)} | Episode Reward: "
                      f"{episode_reward:.4f} | Running Time: {time.time() - t0:.4f}")
                training.episode_done(episode_reward, step + 1, noise_scale=agent.var)

    if args.test:
        agent.load()
        with Testing(agent, env, args) as testing:  # ours: a window or a film, the mean, --explain
            env = testing.env
            for episode in range(TEST_EPISODES):
                state = env.reset()
                episode_reward = 0
                for step in range(MAX_STEPS):
                    env.render()
                    state, reward, done, info = env.step(agent.get_action(state, greedy=True))
                    episode_reward += reward
                    if done or info["TimeLimit.truncated"]:
                        break
                print(f"Testing | Episode: {episode + 1}/{TEST_EPISODES} | Episode Reward: "
                      f"{episode_reward:.4f} | Running Time: {time.time() - t0:.4f}")
                testing.episode_done(episode_reward)
