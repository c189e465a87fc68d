"""m-SAM's groups: members of an axis of `jax.vmap`."""

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from lookbehind_optax import _loop

# Code that evaluates groups one after another grows with their number.
_MOST = 16


def one_after_another(function, axis_name):
    """Makes `jax.vmap` evaluate the function one member after another on CPUs.

    If each member has its own weights, vmap turns their convolutions into grouped ones,
    which take XLA:CPU twice as long. So a function with a convolution gets
    straight-line code; all others, and those that communicate over the axis, are
    evaluated side by side.
    """

    def call(*args):
        leaves, structure = jax.tree.flatten(args)
        arrays = [x for x in leaves if _is_array(x)]

        def of_arrays(*arrays):  # flags, functions and the like stay as they are
            found = iter(arrays)
            merged = [next(found) if _is_array(x) else x for x in leaves]
            return function(*jax.tree.unflatten(structure, merged))

        closed, shape = jax.make_jaxpr(of_arrays, return_shape=True)(*arrays)
        equations = list(_loop.equations(closed.jaxpr))
        alone = not any(_mentions(axis_name, eqn) for eqn in equations)
        if not (alone and any(map(_loop.is_convolution, equations))):
            return function(*args)
        out = _in_sequence(closed.jaxpr)(closed.consts, *arrays)
        return jax.tree.unflatten(jax.tree.structure(shape), out)

    return call


def _in_sequence(jaxpr):
    # A rule for vmap may not close over tracers, hence the jaxpr and its constants.
    def evaluate(consts, *args):
        return jax.core.eval_jaxpr(jaxpr, consts, *args)

    of_one = jax.custom_batching.custom_vmap(evaluate)

    @of_one.def_vmap
    def of_all(size, is_batched, *args):
        is_batched = tuple(is_batched)
        in_axes = jax.tree.map(lambda batched: 0 if batched else None, is_batched)
        side_by_side = jax.vmap(evaluate, in_axes, axis_size=size)
        one = jax.jit(evaluate)  # traced once

        def in_sequence(*args):
            members = [
                jax.tree.map(
                    lambda batched, x, j=j: x[j] if batched else x, is_batched, args
                )
                for j in range(size)
            ]
            found = [_loop.now(one(*member)) for member in members]
            return jax.tree.map(lambda *xs: jnp.stack(xs), *found)

        if size > _MOST:
            out = side_by_side(*args)
        else:
            out = jax.lax.platform_dependent(
                *args, cpu=in_sequence, default=side_by_side
            )
        return out, jax.tree.map(lambda _: True, out)

    return of_one


def _is_array(x):
    return isinstance(x, (jax.Array, np.ndarray))


def _mentions(axis_name, eqn):
    axes = [eqn.params.get(name) for name in ("axes", "axis_name")]
    return axis_name in jax.tree.leaves(axes)
