"""`python -m bench.control`: what a bound on the divergence buys in policy optimisation.

Policies for the cart and pole of Barto, Sutton and Anderson (1983), 16 carts at a time, 128 steps an iteration, by the
importance-weighted surrogate with generalised advantages. Each method runs with several learning rates, five seeds
each: the return of the last ten iterations (500 at most), the divergence from the policy that drew the data to the one
it became, and how many seeds fail.
"""

import argparse
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxdiv import losses, transforms

CARTS, STEPS, LIMIT = 16, 128, 500
BOUND = 0.01


# ---------------------------------------------------------------- the cart and its pole


def _move(state, right):
    """One step of 20 ms by Euler's rule."""
    x, speed, angle, turn = state
    force, gravity, pole, length, total = jnp.where(right == 1, 10.0, -10.0), 9.8, 0.1, 0.5, 1.1
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    push = (force + pole * length * turn**2 * sin) / total
    turning = (gravity * sin - cos * push) / (length * (4 / 3 - pole * cos**2 / total))
    pushed = push - pole * length * turning * cos / total
    return jnp.stack([x + 0.02 * speed, speed + 0.02 * pushed, angle + 0.02 * turn, turn + 0.02 * turning])


def _start(key):
    return jax.random.uniform(key, (4,), minval=-0.05, maxval=0.05)


def _network(key, outputs):
    a, b = jax.random.split(key)
    return {
        "in": jax.random.normal(a, (4, 32)) / 2,
        "in_bias": jnp.zeros((1, 32)),
        "out": 0.1 * jax.random.normal(b, (32, outputs)),
        "out_bias": jnp.zeros((1, outputs)),
    }


def _apply(params, x):
    return jnp.tanh(x @ params["in"] + params["in_bias"]) @ params["out"] + params["out_bias"]


def _rollout(policy, carts, key):
    """States, actions, who fell, who was stopped, and the lengths of episodes that ended, `[STEPS, CARTS]` each."""

    def step(carry, key):
        states, ages = carry
        draw, reset = jax.random.split(key)
        actions = jax.random.categorical(draw, _apply(policy, states))
        moved, ages = jax.vmap(_move)(states, actions), ages + 1
        fell = (jnp.abs(moved[:, 0]) > 2.4) | (jnp.abs(moved[:, 2]) > 12 * jnp.pi / 180)
        over = fell | (ages >= LIMIT)
        fresh = jax.vmap(_start)(jax.random.split(reset, CARTS))
        carry = jnp.where(over[:, None], fresh, moved), jnp.where(over, 0, ages)
        return carry, (states, moved, actions, fell, over, jnp.where(over, ages, 0))

    return jax.lax.scan(step, carts, jax.random.split(key, STEPS))


def _advantages(value, states, moved, fell, over, discount=0.99, decay=0.95):
    now, then = (_apply(value, x.reshape(-1, 4)).reshape(x.shape[:2]) for x in (states, moved))
    surprise = 1 + discount * jnp.where(fell, 0, then) - now

    def back(later, now):
        surprise, over = now
        here = surprise + discount * decay * jnp.where(over, 0, later)
        return here, here

    _, advantages = jax.lax.scan(back, jnp.zeros(CARTS), (surprise, over), reverse=True)
    return advantages, advantages + now


# ---------------------------------------------------------------- the methods


def _methods(rate):
    """name -> (optimizer, passes over the data, the loss as a function of surrogate, ratio, advantages and penalty)."""

    def plain(ratio, advantages, _):
        return -jnp.mean(ratio * advantages)

    def clipped(ratio, advantages, _):
        return -jnp.mean(jnp.minimum(ratio * advantages, jnp.clip(ratio, 0.8, 1.2) * advantages))

    def penalised(ratio, advantages, penalty):
        return penalty - jnp.mean(ratio * advantages)

    trust = transforms.kl_trust_region(BOUND)
    return {
        "unconstrained": (optax.adam(rate), 10, plain),
        "PPO, clipped ratio": (optax.adam(rate), 10, clipped),
        "PPO, KL penalty": (optax.adam(rate), 10, penalised),
        "Adam in a trust region": (optax.chain(optax.adam(rate), trust), 10, plain),
        "TRPO": (optax.chain(transforms.natural_gradient(0.1), optax.scale(-1e3 * rate), trust), 1, plain),
    }


def _train(method, seed, iterations):
    """The mean length of the episodes that end, and the divergence, of each iteration."""
    optimizer, passes, loss = method
    optimizer, fit = optax.with_extra_args_support(optimizer), optax.adam(1e-2)
    controller = transforms.adaptive_coefficient(BOUND, transforms.doubling())

    def iterate(carry, key):
        policy, value, states, carts, penalty = carry
        carts, (before, moved, actions, fell, over, lengths) = _rollout(policy, carts, key)
        advantages, returns = (x.ravel() for x in _advantages(value, before, moved, fell, over))
        advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
        x, chosen = before.reshape(-1, 4), jax.nn.one_hot(actions.ravel(), 2)
        old_logits = _apply(policy, x)

        def log_probability(logits):
            return -losses.cross_entropy_with_probs(logits, chosen)

        def divergence(policy):
            return losses.mean(losses.forward_kl(_apply(policy, x), old_logits))

        def objective(policy):
            ratio = jnp.exp(log_probability(_apply(policy, x)) - log_probability(old_logits))
            return loss(ratio, advantages, penalty.coefficient * divergence(policy))

        def improve(carry, _):
            policy, state = carry
            updates, state = optimizer.update(jax.grad(objective)(policy), state, policy, divergence=divergence)
            return (optax.apply_updates(policy, updates), state), None

        def regress(carry, _):
            value, state = carry
            gradient = jax.grad(lambda value: jnp.mean((_apply(value, x)[:, 0] - returns) ** 2))(value)
            updates, state = fit.update(gradient, state, value)
            return (optax.apply_updates(value, updates), state), None

        (policy, policy_state), _ = jax.lax.scan(improve, (policy, states[0]), length=passes)
        (value, value_state), _ = jax.lax.scan(regress, (value, states[1]), length=10)
        moved_by = divergence(policy)
        ended = jnp.sum(lengths > 0)
        length = jnp.where(ended > 0, jnp.sum(lengths) / jnp.maximum(ended, 1), LIMIT)
        penalty = controller.update(moved_by, penalty)
        return (policy, value, (policy_state, value_state), carts, penalty), (length, moved_by)

    keys = jax.random.split(jax.random.key(seed), 4)
    policy, value = _network(keys[0], 2), _network(keys[1], 1)
    carts = jax.vmap(_start)(jax.random.split(keys[2], CARTS)), jnp.zeros(CARTS, int)
    carry = policy, value, (optimizer.init(policy), fit.init(value)), carts, controller.init()
    return jax.lax.scan(iterate, carry, jax.random.split(keys[3], iterations))[1]


def main():
    """Prints the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.control", description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--iterations", type=int, default=50)
    options = parser.parse_args()
    print("| method | learning rate | last ten returns | worst seed | KL, median | KL, largest |")
    print("|---|--:|--:|--:|--:|--:|")
    for rate in (1e-3, 3e-3, 1e-2, 3e-2):
        for name, method in _methods(rate).items():
            run = jax.jit(jax.vmap(functools.partial(_train, method, iterations=options.iterations)))
            lengths, divergences = (np.asarray(x) for x in run(jnp.arange(options.seeds)))
            last = lengths[:, -10:].mean(1)
            print(
                f"| {name} | {rate} | {last.mean():.0f} ± {last.std():.0f} | {last.min():.0f} "
                f"| {np.median(divergences):.1g} | {divergences.max():.2g} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
