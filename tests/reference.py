"""The updates of the chapter once more: NumPy, float64, derivatives worked out by hand.

test_updates.py runs these beside ddpg.py, td3.py and sac.py. Nothing is shared with the
scripts, neither code nor TensorFlow; only the names of networks and optimizers are
theirs, so that a test can pair them up.
"""

import numpy as np


class Net:
    """Dense layers, ReLU between them, none after the last.

    Args:
        weights: [W, b, W, b, ...], copied.

    Attributes:
        margin: how close a derivative came to a kink, where float32 may see its other side.
    """

    def __init__(self, weights):
        self.weights = [np.array(w, np.float64) for w in weights]
        self.margin = np.inf

    def forward(self, x):
        """The output for inputs x (N, n), and a tape for backward()."""
        tape = []
        for w, b in self._layers():
            tape.append(x)
            x = (np.maximum(x, 0) if len(tape) > 1 else x) @ w + b
        return x, tape

    def backward(self, tape, grad):
        """From the loss's gradient by the output: that by each weight, and that by the input."""
        (w, _), *deeper = self._layers()
        grads = []
        for (w_deep, _), x in zip(reversed(deeper), reversed(tape[1:])):
            grads = [np.maximum(x, 0).T @ grad, grad.sum(0), *grads]
            grad = grad @ w_deep.T * (x > 0)
            self.near_kink(x)
        return [tape[0].T @ grad, grad.sum(0), *grads], grad @ w.T

    def near_kink(self, distances):
        """Note at what distances from a kink the derivatives were taken."""
        self.margin = min(self.margin, np.abs(distances).min())

    def _layers(self):
        return list(zip(self.weights[::2], self.weights[1::2]))

    def __call__(self, *columns):
        """The output for the joined columns, where no gradient is wanted."""
        return self.forward(np.hstack(columns))[0]


class Adam:
    """Adam with the defaults of Keras, whose epsilon is added to the uncorrected moment's root.

    Args:
        weights: list of arrays, updated in place.
        learning_rate: number.
    """

    def __init__(self, weights, learning_rate):
        self.weights, self.learning_rate = weights, learning_rate
        self.iterations = 0
        self.moments = [np.zeros_like(w) for w in weights]  # running mean of the gradients
        self.squares = [np.zeros_like(w) for w in weights]  # and of their squares

    def step(self, grads):
        """Go down the gradients once."""
        self.iterations += 1
        correction = np.sqrt(1 - 0.999**self.iterations) / (1 - 0.9**self.iterations)
        for w, g, m, v in zip(self.weights, grads, self.moments, self.squares, strict=True):
            m[...] = 0.9 * m + 0.1 * g
            v[...] = 0.999 * v + 0.001 * g**2
            w[...] = w - self.learning_rate * correction * m / (np.sqrt(v) + 1e-7)


def soft_update(net, target, tau):
    """Move the target's weights towards the network's by the share tau (6.7, 6.8)."""
    for w, t in zip(net.weights, target.weights, strict=True):
        t[...] = (1 - tau) * t + tau * w


def standardise(reward):
    """Rewards less their mean, over the population's standard deviation + 1e-6."""
    deviation = np.sqrt(np.mean((reward - reward.mean()) ** 2))
    return (reward - reward.mean()) / (deviation + 1e-6)


def regress(q_net, optimizer, state, action, y):
    """One step of Q(s, a) towards y (6.4); returns the squared error before it, and mean Q."""
    q, tape = q_net.forward(np.hstack([state, action]))
    grads, _ = q_net.backward(tape, 2 * (q - y) / len(q))
    optimizer.step(grads)
    return np.mean((q - y) ** 2), np.mean(q)


def climb(q_nets, state, action):
    """The smallest of the networks' Q(s, a), each (N, 1), and its gradient by the action."""
    inputs = np.hstack([state, action])
    values, slopes = [], []
    for net in q_nets:
        q, tape = net.forward(inputs)
        _, slope = net.backward(tape, np.ones_like(q))
        values.append(q)
        slopes.append(slope[:, state.shape[1] :])
    for other in values[1:]:
        q_nets[0].near_kink(values[0] - other)
    smallest = np.argmin(values, axis=0)
    return np.min(values, axis=0), np.choose(smallest, slopes)


def deterministic(policy, state, action_range):
    """Actions range * tanh(policy), and what turns the loss's gradient by them into weights'."""
    x, tape = policy.forward(state)
    squashed = np.tanh(x)

    def backward(grad):
        return policy.backward(tape, grad * action_range * (1 - squashed**2))[0]

    return action_range * squashed, backward


class DDPG:
    """Algorithm 6.26.

    Args:
        nets: dict from `actor`, `critic`, `actor_target`, `critic_target` to weights.
        action_range: number or (action_dim,).
        lr_a, lr_c, gamma, tau, var, reward_scale: as the constants of ddpg.py.
    """

    def __init__(self, nets, action_range, lr_a, lr_c, gamma, tau, var, reward_scale=1.0):
        for name in ("actor", "critic", "actor_target", "critic_target"):
            setattr(self, name, Net(nets[name]))
        self.action_range, self.gamma, self.tau, self.var = action_range, gamma, tau, var
        self.reward_scale = reward_scale
        self.actor_opt = Adam(self.actor.weights, lr_a)
        self.critic_opt = Adam(self.critic.weights, lr_c)

    def act(self, state):
        """The greedy actions."""
        return deterministic(self.actor, state, self.action_range)[0]

    def update(self, state, action, reward, next_state, done):
        """One update from a batch; returns losses and mean Q, named as the agent names them."""
        self.var *= 0.9995
        next_action, _ = deterministic(self.actor_target, next_state, self.action_range)
        next_q = self.critic_target(next_state, next_action)
        y = self.reward_scale * reward + self.gamma * (1 - done) * next_q
        critic_loss, q_mean = regress(self.critic, self.critic_opt, state, action, y)

        action, backward = deterministic(self.actor, state, self.action_range)
        q, slope = climb([self.critic], state, action)
        self.actor_opt.step(backward(-slope / len(q)))
        soft_update(self.actor, self.actor_target, self.tau)
        soft_update(self.critic, self.critic_target, self.tau)
        return {"loss/critic": critic_loss, "loss/actor": -q.mean(), "q/mean": q_mean}


class TD3:
    """Algorithm 6.27.

    Args:
        nets: dict from `q_net1`, `q_net2`, `policy_net` and the same after `target_` to weights.
        action_range: number or (action_dim,).
        interval: Q updates for each policy update.
        q_lr, policy_lr: learning rates.
        policy_loss: "q1" or "min", the Q value that the policy climbs.
    """

    standardises, clips = True, False  # as in the chapter

    def __init__(self, nets, action_range, interval, q_lr, policy_lr, policy_loss):
        for name in ("q_net1", "q_net2", "policy_net"):
            setattr(self, name, Net(nets[name]))
            setattr(self, f"target_{name}", Net(nets[f"target_{name}"]))
        self.action_range, self.interval = action_range, interval
        self.climbed = [self.q_net1, self.q_net2][: 2 if policy_loss == "min" else 1]
        self.q_optimizer1 = Adam(self.q_net1.weights, q_lr)
        self.q_optimizer2 = Adam(self.q_net2.weights, q_lr)
        self.policy_optimizer = Adam(self.policy_net.weights, policy_lr)
        self.update_cnt = 0

    def act(self, state):
        """The greedy actions."""
        return deterministic(self.policy_net, state, self.action_range)[0]

    def update(
        self,
        state,
        action,
        reward,
        next_state,
        done,
        noise,
        eval_noise_scale,
        reward_scale=10.0,
        gamma=0.9,
        soft_tau=0.01,
    ):
        """One update from a batch and N(0, 1) noise; returns losses and the mean of q1."""
        self.update_cnt += 1
        smoothing = np.clip(eval_noise_scale * noise, -2 * eval_noise_scale, 2 * eval_noise_scale)
        next_action, _ = deterministic(self.target_policy_net, next_state, self.action_range)
        next_action = next_action + smoothing
        if self.clips:
            next_action = np.clip(next_action, -self.action_range, self.action_range)
        next_q = np.minimum(
            self.target_q_net1(next_state, next_action), self.target_q_net2(next_state, next_action)
        )
        reward = standardise(reward) if self.standardises else reward
        y = reward_scale * reward + gamma * (1 - done) * next_q
        q1_loss, q_mean = regress(self.q_net1, self.q_optimizer1, state, action, y)
        q2_loss, _ = regress(self.q_net2, self.q_optimizer2, state, action, y)
        losses = {"loss/q1": q1_loss, "loss/q2": q2_loss, "q/mean": q_mean}
        if self.update_cnt % self.interval:
            return losses

        action, backward = deterministic(self.policy_net, state, self.action_range)
        q, slope = climb(self.climbed, state, action)
        self.policy_optimizer.step(backward(-slope / len(q)))
        soft_update(self.q_net1, self.target_q_net1, soft_tau)
        soft_update(self.q_net2, self.target_q_net2, soft_tau)
        soft_update(self.policy_net, self.target_policy_net, soft_tau)
        return {**losses, "loss/policy": -q.mean()}


class TanhGaussian:
    """a = range * tanh(x), x ~ N(mean, std^2), reparameterised by z: x = mean + std * z (6.27).

    Args:
        policy: Net whose output is the mean, then log std.
        state: (N, state_dim).
        z: (N, action_dim) from N(0, 1).
        action_range: number or (action_dim,).
        log_std_min, log_std_max: bounds of log std.
        epsilon: added to 1 - tanh^2 in its logarithm.
    """

    def __init__(
        self, policy, state, z, action_range, log_std_min=-20, log_std_max=2, epsilon=1e-6
    ):
        self.policy, self.z, self.action_range, self.epsilon = policy, z, action_range, epsilon
        output, self.tape = policy.forward(state)
        self.mean, log_std = np.split(output, 2, axis=1)
        self.log_std = np.clip(log_std, log_std_min, log_std_max)
        self.inside = (log_std_min <= log_std) & (log_std <= log_std_max)
        policy.near_kink([log_std - log_std_min, log_std - log_std_max])
        self.squashed = np.tanh(self.mean + np.exp(self.log_std) * z)
        self.action = action_range * self.squashed
        log_prob = (
            -0.5 * z**2
            - self.log_std
            - 0.5 * np.log(2 * np.pi)  # of x; of a = range tanh(x):
            - np.log(1 - self.squashed**2 + epsilon)
            - np.log(action_range)
        )
        self.log_prob = log_prob.sum(1, keepdims=True)

    def backward(self, by_action, by_log_prob):
        """The loss's gradient by the policy's weights, from that by action and by log_prob."""
        # z is fixed: x - mean = std z, so that (x - mean) / std contributes nothing.
        slope = 1 - self.squashed**2
        by_x = by_action * self.action_range * slope
        by_x = by_x + by_log_prob * 2 * self.squashed * slope / (slope + self.epsilon)
        by_log_std = by_x * np.exp(self.log_std) * self.z - by_log_prob
        grad = np.hstack([by_x, by_log_std * self.inside])
        return self.policy.backward(self.tape, grad)[0]


class SAC:
    """Algorithm 6.28.

    Args:
        nets: dict from `soft_q_net1`, `soft_q_net2`, the same after `target_`, and
            `policy_net` to weights.
        log_alpha: number.
        action_range: number or (action_dim,).
        soft_q_lr, policy_lr, alpha_lr: learning rates.
        policy_loss: "min" or "q1", the Q value that the policy climbs.
        log_std_min, log_std_max: bounds of the policy's log std.
    """

    standardises = True  # as in the chapter
    fixed_alpha = 1.0  # the same

    def __init__(
        self,
        nets,
        log_alpha,
        action_range,
        soft_q_lr,
        policy_lr,
        alpha_lr,
        policy_loss,
        log_std_min,
        log_std_max,
    ):
        for name in ("soft_q_net1", "soft_q_net2"):
            setattr(self, name, Net(nets[name]))
            setattr(self, f"target_{name}", Net(nets[f"target_{name}"]))
        self.policy_net = Net(nets["policy_net"])
        self.log_alpha = np.array(log_alpha, np.float64)
        self.alpha = np.exp(self.log_alpha)
        self.action_range = action_range
        self.bounds = log_std_min, log_std_max
        self.climbed = [self.soft_q_net1, self.soft_q_net2][: 2 if policy_loss == "min" else 1]
        self.soft_q_optimizer1 = Adam(self.soft_q_net1.weights, soft_q_lr)
        self.soft_q_optimizer2 = Adam(self.soft_q_net2.weights, soft_q_lr)
        self.policy_optimizer = Adam(self.policy_net.weights, policy_lr)
        self.alpha_optimizer = Adam([self.log_alpha], alpha_lr)

    def act(self, state):
        """The greedy actions."""
        return TanhGaussian(self.policy_net, state, 0, self.action_range).action

    def update(
        self,
        state,
        action,
        reward,
        next_state,
        done,
        next_z,
        z,
        reward_scale=10.0,
        auto_entropy=True,
        target_entropy=-2,
        gamma=0.99,
        soft_tau=0.01,
    ):
        """One update from a batch and two draws of N(0, 1).

        As in the chapter, a fixed alpha is set after the policy's step. Returns losses, the
        mean of q1, and the new alpha.
        """
        sample = TanhGaussian(self.policy_net, next_state, next_z, self.action_range, *self.bounds)
        next_v = np.minimum(
            self.target_soft_q_net1(next_state, sample.action),
            self.target_soft_q_net2(next_state, sample.action),
        )
        next_v = next_v - self.alpha * sample.log_prob
        reward = standardise(reward) if self.standardises else reward
        y = reward_scale * reward + gamma * (1 - done) * next_v  # (6.25)
        q1_loss, q_mean = regress(self.soft_q_net1, self.soft_q_optimizer1, state, action, y)
        q2_loss, _ = regress(self.soft_q_net2, self.soft_q_optimizer2, state, action, y)

        sample = TanhGaussian(self.policy_net, state, z, self.action_range, *self.bounds)
        q, slope = climb(self.climbed, state, sample.action)
        policy_loss = np.mean(self.alpha * sample.log_prob - q)  # (6.28)
        share = 1 / len(q)
        self.policy_optimizer.step(sample.backward(-slope * share, self.alpha * share))

        self.alpha, alpha_loss = self.fixed_alpha, 0.0
        if auto_entropy:  # (6.29), by log alpha in alpha's place
            excess = np.mean(sample.log_prob + target_entropy)
            alpha_loss = -self.log_alpha * excess
            self.alpha_optimizer.step([-excess])
            self.alpha = np.exp(self.log_alpha)

        soft_update(self.soft_q_net1, self.target_soft_q_net1, soft_tau)
        soft_update(self.soft_q_net2, self.target_soft_q_net2, soft_tau)
        return {"loss/q1": q1_loss, "loss/q2": q2_loss, "loss/policy": policy_loss,
                "loss/alpha": alpha_loss, "q/mean": q_mean, "alpha": self.alpha}
