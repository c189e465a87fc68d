"""The problems of the tests: losses with their parameters and data, steps, meshes."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from tests.library import reference

# Losses with nothing but parameters.


def quadratic(p):
    """½ p², whose gradient is p."""
    return sum(jnp.sum(x**2) for x in jax.tree.leaves(p)) / 2


def parabola(dtype=jnp.float32):
    """(start, minimum, loss), as for the two below."""
    target = jnp.array([1.0, -1.0, 1.0], dtype)
    if jnp.iscomplexobj(target):
        target = target * jnp.array(1 + 1j, dtype)
    start = jnp.array([-1.0, 10.0, 1.0], dtype)
    return start, target, lambda p: jnp.sum(jnp.abs(p - target) ** 2)


def rosenbrock():
    def loss(p):
        return (1.0 - p[0]) ** 2 + 100.0 * (p[1] - p[0] ** 2) ** 2

    return jnp.zeros(2, jnp.float32), jnp.ones(2, jnp.float32), loss


def mixed_tensors():
    target = {
        "kernel": jnp.array([[1.0, 0.0], [-1.0, 1.0]], jnp.float32),
        "bias": jnp.array([1.0, -1.0, 2.0], jnp.float32),
    }

    def loss(p):
        return sum(jnp.sum((p[name] - target[name]) ** 2) for name in target)

    return jax.tree.map(jnp.zeros_like, target), target, loss


def gradient_step(optimizer, loss, params, state, **extra):
    """(params, state, updates) of a step as users write it by hand.

    Complex gradients are conjugated, as Optax wants them.
    """

    def grad(p):
        return jax.tree.map(jnp.conj, jax.grad(loss)(p))

    extra = extra if "value_fn" in extra else {"grad_fn": lambda p, i: grad(p), **extra}
    updates, state = optimizer.update(grad(params), state, params, **extra)
    return optax.apply_updates(params, updates), state, updates


# For what is refused before anything is computed.

PARAMS = {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)}


def twice(p, i):
    """A gradient function."""
    return jax.tree.map(lambda x: 2 * x, p)


# A layer, with a batch.


def regression(dtype=jnp.float32, examples=24, width=5):
    """Parameters and the batch."""
    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.array(rng.normal(size=shape), dtype)
    params = {"kernel": draw(width, 2), "bias": draw(2)}
    return params, (draw(examples, width), draw(examples, 2))


def regression_loss(params, x, y):
    return jnp.mean((jnp.tanh(x @ params["kernel"] + params["bias"][None]) - y) ** 2)


regression_grad = jax.jit(jax.grad(regression_loss))


class Groups:
    """Examples in groups, and where m-SAM comes with them after some steps."""

    number, size, steps, rho, k = 4, 3, 3, 0.2, 3
    base = optax.chain(optax.add_decayed_weights(0.01), optax.sgd(0.1, momentum=0.9))

    def __init__(self):
        params, batch = regression(jnp.float64, self.number * self.size)
        self.params, self.batch = params, batch
        self.split = [z.reshape(self.number, self.size, -1) for z in batch]

    def gradients(self):
        """Of each group, a function from parameters to NumPy's arrays."""
        return [
            lambda p, xy=xy: jax.tree.map(np.asarray, regression_grad(p, *xy))
            for xy in zip(*self.split, strict=True)
        ]

    def trajectory(self, member):
        """The parameters after each step, by the reference."""
        return reference.grouped_steps(
            jax.tree.map(np.asarray, self.params),
            self.gradients(),
            reference.SGD(0.1, 0.9, 0.01),
            member.reference(self.k),
            self.rho,
            self.steps,
        )


def classification(examples=12):
    """A batch of two classes."""
    rng = np.random.default_rng(0)
    x = jnp.array(rng.normal(size=(examples, 3)), jnp.float32)
    return x, jnp.array(rng.integers(2, size=examples))


class ConvNet(nn.Module):
    features: tuple[int, ...] = (4, 6)
    classes: int = 3

    @nn.compact
    def __call__(self, x):
        for features in self.features:
            x = nn.relu(nn.Conv(features, (3, 3))(x))
        return nn.Dense(self.classes)(x.mean((1, 2)))


# Devices.


def mesh_of(devices, name="data"):
    """The first devices along one axis, of the automatic kind."""
    return jax.make_mesh(
        (devices,),
        (name,),
        axis_types=(jax.sharding.AxisType.Auto,),
        devices=jax.devices()[:devices],
    )
