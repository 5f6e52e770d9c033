"""DDPG on Pendulum (section 6.5.2): deep deterministic policy gradient.

Algorithm 6.26 of the chapter; Lillicrap et al., 2016, arXiv:1509.02971.

    python ddpg.py --train       learn, save the weights and the reward curve
    python ddpg.py --test        load the weights and play greedily
"""

from common import arguments

ALG_NAME = "DDPG"
ENV_ID = "Pendulum-v1"  # environment: an id of Gym or Gymnasium, or module:ID
RANDOM_SEED = 2  # fixes everything random, in [0, 4294967295]
RENDER = False  # show training in a window

TRAIN_EPISODES = 100  # episodes of training, in [1, inf)
TRAIN_STEPS = 0  # steps of training, whatever the episodes (0: episodes count), in [0, inf)
TEST_EPISODES = 10  # episodes of testing, in [1, inf)
MAX_STEPS = 200  # steps after which an episode is cut, in [1, inf)

LR_A = 1e-3  # learning rate of the actor, in (0, inf)
LR_C = 2e-3  # learning rate of the critic, in (0, inf)
GAMMA = 0.9  # discount factor, in [0, 1]
TAU = 0.01  # share of the networks in a soft update of their targets, in (0, 1]
MEMORY_CAPACITY = 10000  # transitions kept; learning starts once they are there, in [1, 1e9]
BATCH_SIZE = 32  # transitions in an update, in [1, 1e6]
HIDDEN_DIM = 64  # units in each hidden layer, in [1, 4096]
UPDATE_ITR = 1  # updates after each step, in [1, inf)
NOISE = "gaussian"  # exploration noise (ou: Ornstein-Uhlenbeck), in {gaussian, ou}
VAR = 2.0  # standard deviation of the exploration noise at the start, in [0, inf)
OU_THETA = 0.15  # how fast Ornstein-Uhlenbeck noise returns to zero, in (0, inf)
VAR_DECAY = 0.9995  # factor of that deviation at each update, in (0, 1]
CHECKPOINT_EVERY = 10  # episodes between savings of the training state, in [1, inf)
EVALUATE_EVERY = 0  # steps between greedy evaluations (0: none), in [0, inf)
EVALUATION_EPISODES = 10  # episodes of an evaluation, in [1, 1000]
KEEP = "last"  # weights that are saved (best: of the best evaluation), in {last, best}

# Not in the chapter; with these values, as the chapter has it:
EXPLORE_STEPS = 0  # up to this step, actions are uniformly random, in [0, inf)
LEARN_AFTER = 0  # transitions stored before learning starts (0: a full memory), in [0, inf)
EXPLORE_HOLD = 1  # steps for which a uniformly random action is held, in [1, inf)
REWARD_SCALE = 1.0  # factor of the rewards, in (0, inf)
UNIT_ACTIONS = False  # the agent's actions are in [-1, 1], whatever the environment's range
WEIGHT_INIT = "normal"  # N(0, 0.3), or uniform as in the papers, in {normal, fan_in}

MODEL_DIR = "model"  # folder of the weights
IMAGE_DIR = "image"  # folder of the curves

PRESETS = {
    # Lillicrap et al., 2016: section 7, "Experiment Details", without batch normalisation,
    # weight decay and the late entry of the action into the critic
    "paper": {
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
    },
}
PRESETS["tuned"] = {
    **PRESETS["paper"],
    # for Pendulum, chosen by trials on seeds 0 and 1:
    "LR_A": 1e-3,
    "TAU": 0.005,
    "BATCH_SIZE": 128,
    "HIDDEN_DIM": 64,
    "VAR": 0.1,
    "UPDATE_ITR": 2,
    "REWARD_SCALE": 0.1,  # Q is then in the tens, not the hundreds
    "EVALUATE_EVERY": 1000,
    "EVALUATION_EPISODES": 100,  # fewer do not tell the rare starts that matter
    "KEEP": "best",
}

args = arguments.parse(globals())  # before the long imports, so that --help answers at once

import contextlib
import itertools
import random
import time

import numpy as np
import tensorflow as tf
import tensorlayer as tl

from common import explain, report, weights
from common.compiled import Compiler, cannot_be_copied, compiled, joined
from common.environment import make
from common.networks import check_choice, fan_in, memory_for, networks_of
from common.replay_buffer import check_sizes, empty_rows


class OrnsteinUhlenbeck:
    """The noise process of (6.1), dX = theta (mu - X) dt + sigma dW.

    The process is sampled exactly: X(t + dt), given X(t), is normal with mean
    mu + (X(t) - mu) exp(-theta dt) and variance
    sigma^2 (1 - exp(-2 theta dt)) / (2 theta), for steps dt of any size.

    Args:
        size: dimensions, independent of each other.
        theta: rate of the return to mu, per unit of time.
        sigma: volatility; sqrt(2 theta), the default, makes the stationary standard deviation 1.
        mu: the mean.
        dt: time between samples.
        generator: np.random.Generator.
    """

    def __init__(self, size, theta=0.15, sigma=None, mu=0.0, dt=1.0, generator=None):
        self.size, self.mu = size, mu
        self.generator = generator or np.random.default_rng()
        sigma = np.sqrt(2 * theta) if sigma is None else sigma
        self.decay = np.exp(-theta * dt)
        self.scale = sigma * np.sqrt((1 - np.exp(-2 * theta * dt)) / (2 * theta))
        self.reset()

    def reset(self):
        """Start again from the mean."""
        self.x = np.full(self.size, self.mu)

    def sample(self):
        """Go on by dt; returns the new X, (size,)."""
        noise = self.scale * self.generator.standard_normal(self.size)
        self.x = self.mu + (self.x - self.mu) * self.decay + noise
        return self.x


class DDPG:
    """Deep deterministic policy gradient: an actor, a critic, and a moving average of each.

    Args:
        action_dim, state_dim: sizes of an action and a state.
        action_range: half the width of the action interval, a number or (action_dim,).
        the rest: as the constants and flags of these names, by default with their values.
    """

    count = itertools.count()  # TensorLayer wants another name for each model of a process
    __reduce__ = cannot_be_copied

    def __init__(self, action_dim, state_dim, action_range, lr_a=LR_A, lr_c=LR_C, gamma=GAMMA,
                 tau=TAU, memory_capacity=MEMORY_CAPACITY, batch_size=BATCH_SIZE,
                 hidden_dim=HIDDEN_DIM, noise=NOISE, var=VAR, ou_theta=OU_THETA,
                 var_decay=VAR_DECAY, reward_scale=REWARD_SCALE, weight_init=WEIGHT_INIT,
                 eager=args.eager):
        # a row: state, action, reward, next state, done
        width = state_dim * 2 + action_dim + 2
        self.memory = empty_rows("--memory-capacity", memory_capacity, width)
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

        self.averages = []  # of the moving average, see _join()
        self.actor_opt = tf.optimizers.Adam(lr_a)
        self.critic_opt = tf.optimizers.Adam(lr_c)

        self.losses = None  # and mean Q, of the last update
        self.loss_names = ["loss/critic", "loss/actor", "q/mean"]
        self.compiler = Compiler(self, eager, self._join, ("gamma", "tau", "reward_scale"))
        self._join()

    def _join(self):
        """Averages from the targets, slots for the weights, also where one is replaced later."""
        # The first apply() creates the averages: here, where they equal the targets.
        self.ema = tf.train.ExponentialMovingAverage(decay=1 - self.tau)
        paras = self.actor.trainable_weights + self.critic.trainable_weights
        self.ema.apply(paras)
        self.averages = [self.ema.average(para) for para in paras]
        targets = self.actor_target.trainable_weights + self.critic_target.trainable_weights
        for average, target in zip(self.averages, targets):
            average.assign(target)
        self.actor_opt = joined(self.actor_opt, self.actor.trainable_weights)
        self.critic_opt = joined(self.critic_opt, self.critic.trainable_weights)
        check_choice("noise", self.noise, "gaussian", "ou")

    def ema_update(self):
        """Move the targets towards the networks, by TAU (6.7, 6.8)."""
        paras = self.actor.trainable_weights + self.critic.trainable_weights
        self.ema.apply(paras)
        for i, j in zip(self.actor_target.trainable_weights +
                        self.critic_target.trainable_weights, paras):
            i.assign(self.ema.average(j))

    @property
    def size(self):
        """How many transitions are stored."""
        return min(self.pointer, len(self.memory))

    def reset_noise(self):
        """Start the noise process anew, as algorithm 6.26 does for each episode."""
        self.ou.reset()

    @compiled
    def act(self, states):
        """The actor's actions (N, action_dim) for states (N, state_dim)."""
        return self.actor(states)

    def get_action(self, s, greedy=False):
        """The action (action_dim,) for one state (state_dim,), with noise unless greedy."""
        a = self.act(np.array([s], dtype=np.float32))[0]
        if greedy:
            return a
        if self.noise == "ou":
            noise = self.ou.sample()
        else:
            noise = self.generator.standard_normal(self.action_dim)
        return np.clip(a + self.var * noise, -self.action_range, self.action_range)

    def sample_action(self):
        """A uniformly random action (action_dim,)."""
        return self.action_range * self.generator.uniform(-1, 1, self.action_dim)

    def learn(self, n_updates=1):
        """Update critic, actor and targets n_updates times, each time from a new batch.

        The batches are drawn from the whole memory, or from what is stored of it; where that
        is nothing, a ValueError says so.
        """
        if not self.size:
            raise ValueError("the memory is empty: call store_transition() before learn()")
        self.var *= self.var_decay**n_updates
        indices = self.generator.integers(self.size, size=(n_updates, self.batch_size))
        self.losses = self.compiler.for_each(self._update_from, self.memory[indices],
                                             (None,) * n_updates)

    def _update_from(self, bt, _):
        """One update: the body of the chapter's learn(), algorithm 6.26."""
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

        Args:
            s, s_: (state_dim,) observations before and after, arrays or lists.
            a: (action_dim,) or a number.
            r: reward.
            done: true only for a real terminal, after which nothing can be earned.
        A ValueError names what has another size.
        """
        check_sizes(self.state_dim, self.action_dim, s, a, r, s_, done)
        transition = np.hstack((s, a, r, s_, done))
        index = self.pointer % len(self.memory)
        self.memory[index, :] = transition
        self.pointer += 1

    def greedy_actions(self, states):
        """The actions (N, action_dim) that get_action() gives for states (N, state_dim), greedy."""
        return self.act(states)

    def q_values(self, states, actions):
        """Q values (N,) of actions (N, action_dim) in states (N, state_dim)."""
        return self.critic([states, actions]).numpy()[:, 0]

    def save(self, path=None):
        """Save all networks into the npz file `path`, or the usual one; returns its path."""
        path = path or weights.path(MODEL_DIR, ALG_NAME, ENV_ID, args.preset)
        weights.save(path, ALG_NAME, ENV_ID, networks_of(self), UNIT_ACTIONS)
        return path

    def load(self, path=None):
        """Load all networks; raises UserError, with the agent unchanged, if the file is unfit."""
        path = path or weights.find(MODEL_DIR, ALG_NAME, ENV_ID, args.preset)
        weights.load(path, ALG_NAME, ENV_ID, networks_of(self), UNIT_ACTIONS)
        self._join()


if __name__ == "__main__":
    env = make(ENV_ID, render=RENDER, unit_actions=UNIT_ACTIONS)
    ENV_ID = env.env_id

    # seeds, for results that repeat
    env.seed(RANDOM_SEED)
    random.seed(RANDOM_SEED)
    np.random.seed(RANDOM_SEED)
    tf.random.set_seed(RANDOM_SEED)

    state_dim = env.observation_space.shape[0]
    action_dim = env.action_space.shape[0]
    action_range = env.action_space.high  # actions are in [-action_range, action_range]

    with memory_for("--hidden-dim", HIDDEN_DIM):
        agent = DDPG(action_dim, state_dim, action_range)

    if args.train:
        with report.Training(agent, env, args, globals()) as log:
            frame_idx = log.steps  # 0, unless resumed
            for episode in log.episodes():  # TRAIN_EPISODES, or as many as TRAIN_STEPS takes
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
                log.episode(episode_reward, step + 1, noise_scale=agent.var)

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
                    state, reward, done, info = env.step(agent.get_action(state, greedy=True))
                    episode_reward += reward
                    if done or info["TimeLimit.truncated"]:
                        break
                rewards.append(episode_reward)
                report.episode_line("Testing", f"{episode + 1}/{TEST_EPISODES}", episode_reward, t0)
        report.test_summary(rewards)
        if args.explain:
            explain.save(agent, args, globals())
