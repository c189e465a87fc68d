"""Counts, numbers and choices: refused with a message where they are out of range."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lookbehind_optax as lb
from tests.library.members import ALL
from tests.library.members import NAMED
from tests.library.members import WITH_ETA
from tests.library.members import WITH_K
from tests.library.problems import PARAMS

SGD = optax.sgd(0.1)

each_with_k = pytest.mark.parametrize("name", WITH_K)


@pytest.mark.parametrize("name", NAMED)
@pytest.mark.parametrize(
    ("rho", "error"),
    [
        (-0.1, ValueError),
        (float("nan"), ValueError),
        (float("inf"), ValueError),
        (np.float32(-1.0), ValueError),
        (jnp.array(-1.0), ValueError),
        (jnp.array([0.1, 0.2]), ValueError),
        ("0.1", TypeError),
        (None, TypeError),
        (True, TypeError),
        (0.1 + 0j, TypeError),
        (jnp.array(1j), TypeError),
    ],
)
def test_rho(name, rho, error):
    with pytest.raises(error, match=r"^rho must be .* got "):
        NAMED[name](SGD, rho=rho)


WITH_ALPHA = {
    "lookbehind_sam": functools.partial(lb.lookbehind_sam, SGD),
    "lookbehind_asam": functools.partial(lb.lookbehind_asam, SGD),
    "lookahead": functools.partial(lb.lookahead, SGD),
    "gsam": functools.partial(lb.gsam, SGD),
    "every_descent": lb.every_descent,
    "surrogate_gap_descent": lb.surrogate_gap_descent,
}


@pytest.mark.parametrize("name", WITH_ALPHA)
@pytest.mark.parametrize(
    ("alpha", "error"),
    [
        (-0.5, ValueError),
        (np.nan, ValueError),
        (np.inf, ValueError),
        ([0.5], TypeError),
    ],
)
def test_alpha(name, alpha, error):
    with pytest.raises(error, match=r"^alpha must be a non-negative number"):
        WITH_ALPHA[name](alpha=alpha)


@pytest.mark.parametrize(
    "alpha", ["adaptive", lb.adaptive_alpha], ids=["name", "maker"]
)
@pytest.mark.parametrize("member", [lb.lookbehind_sam, lb.lookbehind_asam])
def test_an_adaptive_alpha_is_made(member, alpha):
    message = r"^alpha must be .* or adaptive_alpha\(\); got .*adaptive"
    with pytest.raises(TypeError, match=message):
        member(SGD, alpha=alpha)


@pytest.mark.parametrize("name", WITH_ETA)
@pytest.mark.parametrize(
    ("eta", "error"), [(-0.01, ValueError), (np.nan, ValueError), ("a", TypeError)]
)
def test_eta(name, eta, error):
    with pytest.raises(error, match=r"^eta must be a non-negative number"):
        NAMED[name](SGD, eta=eta)


@pytest.mark.parametrize("sigma", [-0.1, np.nan, np.inf])
@pytest.mark.parametrize(
    "make", [lb.friendly_direction, functools.partial(lb.friendly_sam, SGD)]
)
def test_sigma(make, sigma):
    with pytest.raises(ValueError, match=r"^sigma must be a non-negative number"):
        make(sigma=sigma)


SHARES = {
    "gamma": [lb.weighted_descent, functools.partial(lb.wsam, SGD)],
    "decay": [lb.friendly_direction, functools.partial(lb.friendly_sam, SGD)],
}


@pytest.mark.parametrize("value", [-0.1, 1, 1.0, 2.0, np.nan, np.inf, jnp.float32(1.0)])
@pytest.mark.parametrize("name", SHARES)
def test_shares_below_one(name, value):
    for make in SHARES[name]:
        with pytest.raises(
            ValueError, match=rf"^{name} must be .* below 1, and finite"
        ):
            make(**{name: value})


NO_SCHEDULES = {
    "eta": lb.asam_direction,
    "gamma": lb.weighted_descent,
    "sigma": lb.friendly_direction,
    "decay": lb.friendly_direction,
}


@pytest.mark.parametrize("name", NO_SCHEDULES)
def test_no_schedules(name):
    message = f"^{name} must be a non-negative number( below 1)?; got <function"
    with pytest.raises(TypeError, match=message):
        NO_SCHEDULES[name](**{name: optax.constant_schedule(0.1)})


@each_with_k
@pytest.mark.parametrize(
    ("k", "error"),
    [(-1, ValueError), (1.5, TypeError), (2.0, TypeError), (True, TypeError)],
)
def test_k(name, k, error):
    with pytest.raises(error, match=r"^k must be (an integer|at least 0); got "):
        NAMED[name](SGD, k=k)


@each_with_k
def test_k_may_be_numpys(name):
    NAMED[name](SGD, k=np.int64(2))


@pytest.mark.parametrize("name", [*WITH_K, "lookahead"])
def test_a_traced_k(name):
    with pytest.raises(TypeError, match=r"pass static_args=\('k',\)"):
        jax.jit(lambda k: ALL[name](SGD, k=k).init(PARAMS))(2)
    with pytest.raises(TypeError, match=r"pass static_args=\('k',\)"):
        optax.inject_hyperparams(ALL[name])(SGD, k=2).init(PARAMS)


@pytest.mark.parametrize("k", [0, -3])
def test_lookahead_needs_a_step(k):
    with pytest.raises(ValueError, match="k must be at least 1"):
        lb.lookahead(SGD, k=k)


@pytest.mark.parametrize(
    "make",
    [
        lb.every_descent,
        functools.partial(lb.lookbehind_sam, SGD),
        functools.partial(lb.lookbehind_asam, SGD),
        functools.partial(lb.lookahead, SGD),
    ],
)
@pytest.mark.parametrize("pullback", ["pullbck", None, True])
def test_pullback(make, pullback):
    message = "^pullback must be one of 'none', 'reset', 'pullback'; got "
    with pytest.raises(ValueError, match=message):
        make(pullback=pullback)


SCHEDULED = {
    "rho of sam": lambda schedule: lb.sam(SGD, schedule),
    "alpha of lookbehind_sam": lambda schedule: lb.lookbehind_sam(SGD, alpha=schedule),
    "alpha of gsam": lambda schedule: lb.gsam(SGD, alpha=schedule),
    "alpha of lookahead": lambda schedule: lb.lookahead(SGD, alpha=schedule),
}


@pytest.mark.parametrize("name", SCHEDULED)
def test_schedules_of_vectors(name):
    optimizer = SCHEDULED[name](lambda count: jnp.ones(3))
    state = optimizer.init(PARAMS)
    message = f"^{name.split()[0]} must be a scalar, or a schedule"
    with pytest.raises(ValueError, match=message):
        optimizer.update(PARAMS, state, PARAMS, grad_fn=lambda p, i: p)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"m": 0, "axis_name": "g"}, ValueError, "^m must be at least 1; got 0"),
        ({"m": 1.5, "axis_name": "g"}, TypeError, "^m must be an integer"),
        ({"micro_batches": 0}, ValueError, "^micro_batches must be at least 1; got 0"),
        ({"micro_batches": True}, TypeError, "^micro_batches must be an integer"),
    ],
)
def test_counts_of_a_step(options, error, message):
    with pytest.raises(error, match=message):
        lb.make_step(lambda p: jnp.sum(p), SGD, **options)
