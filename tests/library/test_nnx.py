"""The step with an NNX model and its optimizer."""

from typing import Any

import chex
from flax import nnx
from flax.training.dynamic_scale import DynamicScale
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest

import lookbehind_optax as lb
from tests.library.comparisons import is_key
from tests.library.comparisons import without_keys
from tests.library.comparisons import without_perturbed_loss
from tests.library.lenient import lenient
from tests.library.members import each
from tests.library.members import FEW
from tests.library.members import OTHERS
from tests.library.members import SGD
from tests.library.problems import classification as batch

OPTIMIZERS = {
    **{name: member(SGD) for name, member in FEW.items()},
    "adam": lenient(optax.adam(0.1)),
}


# Flax's layers aren't written for strictness; the library's part is tested so.
pytestmark = pytest.mark.usefixtures("standard_promotion")


class Model(nnx.Module):
    norm: Any
    dropout: Any

    def __init__(self, rngs, *, normalize=True, dropout=0.5):
        self.hidden = nnx.Linear(3, 8, rngs=rngs)
        self.norm = nnx.BatchNorm(8, momentum=0.8, rngs=rngs) if normalize else None
        self.dropout = nnx.Dropout(dropout, rngs=rngs)
        self.out = nnx.Linear(8, 2, rngs=rngs)

    def __call__(self, x):
        x = self.hidden(x)
        if self.norm is not None:
            x = self.norm(x)
        return self.out(self.dropout(jnp.tanh(x)))


def make(tx, wrt=nnx.Param, **options):
    model = Model(nnx.Rngs(0), **options)
    return model, nnx.Optimizer(model, tx, wrt=wrt)


def loss_fn(model, x, y):
    logits = model(x)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, y)
    return losses.mean(), {"logit": logits.mean()}


def eager_step(model, optimizer, x, y, **options):
    return lb.nnx_step(model, optimizer, loss_fn, x, y, has_aux=True, **options)


train_step = nnx.jit(
    eager_step, static_argnames=("micro_batches", "m", "axis_name", "fresh_keys")
)


@nnx.jit
def step_by_hand(model, optimizer, x, y):
    """As it is written without `nnx_step`: a copy of the model climbs."""
    graphdef, _, rest = nnx.split(model, optimizer.wrt, ...)
    rest = jax.tree.map(jnp.copy, nnx.as_pure(rest))  # before the clean pass
    of_clean, aux = nnx.grad(
        loss_fn, argnums=nnx.DiffState(0, optimizer.wrt), has_aux=True
    )(model, x, y)

    def grad_fn(params, i):
        loss = lambda params: loss_fn(nnx.merge(graphdef, params, rest), x, y)[0]
        return jax.grad(loss)(params)

    optimizer.update(model, of_clean, grad_fn=grad_fn)
    return aux


def everything(model, optimizer):
    """All that the model and the optimizer hold, as arrays."""
    state = nnx.as_pure((nnx.state(model), nnx.state(optimizer)))
    return jax.tree.map(jnp.copy, without_keys(state))


@pytest.mark.parametrize(
    ("name", "dropout"),
    each(
        [(name, 0.0) for name in OPTIMIZERS]
        # One evaluation, two, a loop of them, and a loop of two each.
        + [(n, 0.5) for n in ("adam", "sam", "lookbehind_sam", "lookbehind_sam_2k")],
        [("lookbehind_sam_2k", 0.5)],
        slow=[(name, 0.0) for name in OTHERS],
    ),
)
def test_it_is_the_step_by_hand(name, dropout):
    """With BatchNorm and dropout: statistics and random streams included."""
    here, there = (make(OPTIMIZERS[name], dropout=dropout) for _ in range(2))
    for step in range(3):
        aux = step_by_hand(*there, *batch())
        out = train_step(*here, *batch())
        chex.assert_trees_all_close(out.aux, aux, rtol=1e-5, atol=1e-6)
        actual, expected = everything(*here), everything(*there)
        states = [nnx.as_pure(optimizer.opt_state) for _, optimizer in (here, there)]
        chex.assert_trees_all_close(
            *[without_perturbed_loss((state,)) for state in states],
            rtol=1e-5,
            atol=1e-6,
        )
        chex.assert_trees_all_close(actual[0], expected[0], rtol=1e-5, atol=1e-6)
        assert here[1].step[...] == there[1].step[...] == step + 1
        if dropout:
            assert here[0].dropout.rngs.count[...] == step + 1


def test_clean_statistics_and_one_dropout_mask():
    """ρ = 0 perturbs nothing: with the same mask the loss is the same."""
    model, optimizer = make(lb.multistep_sam(SGD, rho=0.0))
    mean = model.hidden(batch()[0]).mean(0)
    out = train_step(model, optimizer, *batch())
    np.testing.assert_allclose(out.perturbed_loss, out.loss, rtol=1e-6)
    np.testing.assert_allclose(model.norm.mean[...], 0.2 * mean, rtol=1e-4, atol=1e-6)


def test_fresh_keys():
    model, optimizer = make(lb.sam(SGD, rho=0.0))
    before = everything(model, optimizer)[0]["dropout"]
    out = train_step(model, optimizer, *batch(), fresh_keys=True)
    assert abs(out.perturbed_loss - out.loss) > 1e-3
    after = everything(model, optimizer)[0]["dropout"]
    chex.assert_trees_all_equal(after["rngs"]["key"], before["rngs"]["key"])
    assert after["rngs"]["count"] == 1


@pytest.mark.parametrize(
    "options",
    each(
        [{"micro_batches": 3}, {"m": 4, "axis_name": "group"}],
        [{"m": 4, "axis_name": "group"}],
    ),
)
def test_statistics_are_the_mean_over_parts(options):
    model, optimizer = make(
        lb.sam(SGD, axis_name=options.get("axis_name")), dropout=0.0
    )
    x, y = batch()
    train_step(model, optimizer, x, y, **options)
    strided = "micro_batches" in options
    means, variances = [], []
    for j in range(3):
        part = slice(j, None, 3) if strided else slice(4 * j, 4 * j + 4)
        other, its_optimizer = make(SGD, dropout=0.0)
        train_step(other, its_optimizer, x[part], y[part])
        means.append(other.norm.mean[...])
        variances.append(other.norm.var[...])
    np.testing.assert_allclose(
        model.norm.mean[...], sum(means) / 3, rtol=1e-5, atol=1e-6
    )
    np.testing.assert_allclose(model.norm.var[...], sum(variances) / 3, rtol=1e-5)


@pytest.mark.thorough
def test_micro_batches_without_batch_norm():
    results = []
    for n in (1, 4):
        model, optimizer = make(
            lb.lookbehind_sam(SGD, k=3), normalize=False, dropout=0.0
        )
        out = train_step(model, optimizer, *batch(), micro_batches=n)
        results.append((everything(model, optimizer), out))
    chex.assert_trees_all_close(*results, rtol=1e-5, atol=1e-6)


def test_an_overflowing_step_changes_nothing():
    model, optimizer = make(lb.lookbehind_sam(SGD))
    before = everything(model, optimizer)
    x, y = batch()
    scale = DynamicScale()
    out = train_step(model, optimizer, x.at[0, 0].set(jnp.inf), y, dynamic_scale=scale)
    chex.assert_trees_all_equal(everything(model, optimizer), before)
    assert not out.finite
    assert out.dynamic_scale.scale == 2.0**15
    out = train_step(model, optimizer, x, y, dynamic_scale=scale)
    assert out.finite
    assert optimizer.step[...] == 1
    assert model.dropout.rngs.count[...] == 1


def test_a_part_of_the_parameters():
    head = nnx.All(nnx.Param, nnx.PathContains("out"))
    model, optimizer = make(lb.lookbehind_sam(SGD), wrt=head)
    before = nnx.as_pure(nnx.state(model, nnx.Param))
    train_step(model, optimizer, *batch())
    after = nnx.as_pure(nnx.state(model, nnx.Param))
    chex.assert_trees_all_equal(after["hidden"], before["hidden"])
    assert jnp.any(after["out"]["kernel"] != before["out"]["kernel"])


class Remembering(Model):
    def __call__(self, x):
        logits = super().__call__(x)
        self.seen = nnx.Intermediate(logits)
        return logits


@pytest.mark.parametrize("options", each([{}, {"dynamic_scale": DynamicScale()}], [{}]))
def test_what_the_forward_pass_adds_to_the_model(options):
    """As with `nnx.value_and_grad`: a new variable is there after the step."""
    model = Remembering(nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, lb.lookbehind_sam(SGD), wrt=nnx.Param)
    for _ in range(2):
        train_step(model, optimizer, *batch(), **options)
        assert model.seen.shape == (12, 2)
    message = r"^aux must hold means .*'seen'.*, float32\[4, 2\], depends"
    with pytest.raises(TypeError, match=message):
        train_step(model, optimizer, *batch(), micro_batches=3)


@pytest.mark.thorough
def test_training_resumes_from_a_checkpoint(tmp_path):
    """`nnx.Optimizer` is saved and restored as usual."""
    tx = lb.lookbehind_sam(SGD, alpha=lb.adaptive_alpha())
    model, optimizer = make(tx)
    train_step(model, optimizer, *batch())
    with ocp.StandardCheckpointer() as checkpointer:
        saved = {"model": nnx.state(model), "optimizer": nnx.state(optimizer)}
        checkpointer.save(tmp_path / "state", without_keys(nnx.as_pure(saved)))
        checkpointer.wait_until_finished()
        train_step(model, optimizer, *batch())

        again, its_optimizer = make(tx)
        like = {"model": nnx.state(again), "optimizer": nnx.state(its_optimizer)}
        restored = checkpointer.restore(
            tmp_path / "state", without_keys(nnx.as_pure(like))
        )
    restored = jax.tree.map(
        lambda x, like: jax.random.wrap_key_data(x) if is_key(like) else x,
        restored,
        nnx.as_pure(like),
    )
    nnx.update(again, restored["model"])
    nnx.update(its_optimizer, restored["optimizer"])
    train_step(again, its_optimizer, *batch())
    chex.assert_trees_all_equal(
        everything(again, its_optimizer), everything(model, optimizer)
    )


@pytest.mark.parametrize("name", each(OPTIMIZERS, ["lookbehind_asam_adaptive"]))
def test_a_whole_step_lowers_for_accelerators(name):
    graphdef, state = nnx.split(make(OPTIMIZERS[name]))

    @jax.jit
    def step(leaves, x, y):
        model, optimizer = nnx.merge(graphdef, jax.tree.unflatten(structure, leaves))
        out = train_step(model, optimizer, x, y)
        return jax.tree.leaves((nnx.state((model, optimizer)), out))

    leaves, structure = jax.tree.flatten(state)
    traced = step.trace(leaves, *batch())
    for platform in ("cuda", "tpu"):
        text = traced.lower(lowering_platforms=(platform,)).as_text()
        assert "stablehlo.dot_general" in text


# Bad input.


@pytest.mark.parametrize("wrt", [nnx.Param, nnx.BatchStat])
def test_an_optimizer_of_another_model(wrt):
    model, _ = make(SGD)
    other = nnx.Linear(3, 8, rngs=nnx.Rngs(0))
    if wrt is nnx.BatchStat:  # the same model, other variables
        other = model
    before = everything(model, nnx.Optimizer(other, SGD, wrt=wrt))
    optimizer = nnx.Optimizer(other, SGD, wrt=wrt)
    if wrt is nnx.BatchStat:
        optimizer.wrt = nnx.Param
    # In the words of newer and of older versions of JAX.
    message = "different numbers of pytree children|Mismatch custom node data"
    with pytest.raises(ValueError, match=message):
        train_step(model, optimizer, *batch())
    chex.assert_trees_all_equal(everything(model, optimizer), before)


def test_an_optimizer_of_a_wider_model():
    model, _ = make(SGD)
    model.out = nnx.Linear(8, 5, rngs=nnx.Rngs(0))
    _, optimizer = make(SGD)
    with pytest.raises(TypeError, match="incompatible shapes"):
        train_step(model, optimizer, *batch())


def test_a_key_of_the_model_stays():
    class Keyed(nnx.Module):
        def __init__(self, rngs):
            self.out = nnx.Linear(3, 2, rngs=rngs)
            self.key = nnx.Variable(jax.random.key(7))

        def __call__(self, x):
            return self.out(x + jax.random.normal(self.key[...], x.shape))

    for options in ({"micro_batches": 2}, {"m": 4, "axis_name": "group"}):
        model = Keyed(nnx.Rngs(0))
        tx = lb.sam(SGD, axis_name=options.get("axis_name"))
        optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
        train_step(model, optimizer, *batch(), **options)
        assert model.key[...] == jax.random.key(7)


def test_integers_come_from_the_first_part():
    class Counting(nnx.Module):
        def __init__(self, rngs):
            self.out = nnx.Linear(3, 2, rngs=rngs)
            self.positive = nnx.Variable(jnp.int32(0))

        def __call__(self, x):
            self.positive[...] = jnp.sum(x[:, 0] > 0)
            return self.out(x)

    model = Counting(nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, SGD, wrt=nnx.Param)
    x, y = batch()
    train_step(model, optimizer, x, y, micro_batches=2)
    first, last = (int(jnp.sum(x[j::2, 0] > 0)) for j in range(2))
    assert first != last
    assert model.positive[...] == first


def test_random_streams_as_arguments():
    """As in Flax's own trainers; they advance once a step, as the model's do."""

    class Noisy(nnx.Module):
        def __init__(self, rngs):
            self.out = nnx.Linear(3, 2, rngs=rngs)

        def __call__(self, x, rngs):
            return self.out(x + rngs.noise.normal(x.shape))

    @nnx.jit(static_argnames="by_keyword")
    def step(model, optimizer, x, y, rngs, by_keyword=False):
        def loss(model, x, y, rngs):
            logits = model(x, rngs)
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, y)
            return losses.mean()

        if by_keyword:
            return lb.nnx_step(model, optimizer, loss, x, y, rngs=rngs)
        return lb.nnx_step(model, optimizer, loss, x, y, rngs)

    x, y = batch()
    for by_keyword in (False, True):
        model = Noisy(nnx.Rngs(0))
        optimizer = nnx.Optimizer(model, lb.lookbehind_sam(SGD, k=3), wrt=nnx.Param)
        rngs, expected = nnx.Rngs(noise=7), nnx.Rngs(noise=7)
        for count in (1, 2):
            logits = model(x, expected)
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, y)
            out = step(model, optimizer, x, y, rngs, by_keyword=by_keyword)
            np.testing.assert_allclose(out.loss, losses.mean(), rtol=1e-5)
            assert rngs.noise.count[...] == count


def test_a_stream_that_the_model_holds_too():
    """One object, whether it is reached through the model or through the arguments."""
    rngs = nnx.Rngs(0)
    model = Model(rngs)
    model.dropout.rngs = rngs.dropout
    optimizer = nnx.Optimizer(model, SGD, wrt=nnx.Param)
    before = int(rngs.dropout.count[...])

    def loss(model, x, y, rngs):
        noise = jax.random.normal(rngs.dropout(), x.shape)
        return loss_fn(model, x + noise, y)[0]

    @nnx.jit
    def step(model, optimizer, x, y, rngs):
        return lb.nnx_step(model, optimizer, loss, x, y, rngs)

    step(model, optimizer, *batch(), rngs)
    assert rngs.dropout.count[...] == before + 2


class Averaging(nnx.Optimizer):
    """Keeps a moving average of the parameters, as users do by overriding `update`."""

    def __init__(self, model, tx, *, wrt):
        super().__init__(model, tx, wrt=wrt)
        self.average = nnx.data(nnx.clone(nnx.state(model, wrt)))

    def update(self, model, grads, **kwargs):
        super().update(model, grads, **kwargs)
        self.seen = nnx.data(nnx.Variable(optax.tree.norm(nnx.as_pure(grads))))
        new = nnx.as_pure(nnx.state(model, self.wrt))
        average = jax.tree.map(lambda a, p: (a + p) / 2, nnx.as_pure(self.average), new)
        nnx.update(self.average, average)


OVERRIDING = {
    "sgd, eager": (SGD, eager_step),
    "lookbehind": (lb.lookbehind_sam(SGD), train_step),
}


@pytest.mark.parametrize("name", each(OVERRIDING, ["lookbehind"]))
def test_an_override_of_update_runs(name):
    tx, step = OVERRIDING[name]
    model = Model(nnx.Rngs(0))
    optimizer = Averaging(model, tx, wrt=nnx.Param)
    before = nnx.as_pure(nnx.state(model, nnx.Param))
    before = jax.tree.map(jnp.copy, before)
    out = step(model, optimizer, *batch())
    after = nnx.as_pure(nnx.state(model, nnx.Param))
    expected = jax.tree.map(lambda a, b: (a + b) / 2, before, after)
    chex.assert_trees_all_close(nnx.as_pure(optimizer.average), expected, rtol=1e-6)
    np.testing.assert_allclose(optimizer.seen[...], out.grad_norm, rtol=1e-6)
    assert optimizer.tx is tx
    assert optimizer.step[...] == 1
    # After an overflow, the average stays as well.
    kept = jax.tree.map(jnp.copy, nnx.as_pure(optimizer.average))
    x, y = batch()
    x = x.at[0, 0].set(jnp.inf)
    out = step(model, optimizer, x, y, dynamic_scale=DynamicScale())
    assert not out.finite
    chex.assert_trees_all_equal(nnx.as_pure(optimizer.average), kept)


class Clipping(nnx.Optimizer):
    """Changes the gradient, when the step has used it already."""

    def update(self, model, grads, **kwargs):
        super().update(model, jax.tree.map(lambda g: 0.1 * g, grads), **kwargs)


@pytest.mark.parametrize("step", [eager_step, train_step], ids=["eager", "jit"])
def test_an_override_that_changes_the_gradient(step):
    model = Model(nnx.Rngs(0))
    optimizer = Clipping(model, SGD, wrt=nnx.Param)
    with pytest.raises(ValueError, match=r"^grads must reach the optimizer as"):
        step(model, optimizer, *batch())
    assert optimizer.tx is SGD


def test_other_objects_may_be_read_but_not_changed():
    model, optimizer = make(lb.lookbehind_sam(SGD))
    model.eval()
    teacher, metrics = Model(nnx.Rngs(1)), nnx.metrics.Average()
    teacher.eval()

    def distill(model, x, teacher):
        return jnp.mean((model(x) - teacher(x)) ** 2)

    def counting(model, x, metrics):
        loss = jnp.mean(model(x) ** 2)
        metrics.update(values=loss)
        return loss

    x, _ = batch()
    expected = distill(model, x, teacher)
    out = lb.nnx_step(model, optimizer, distill, x, teacher=teacher)
    np.testing.assert_allclose(out.loss, expected, rtol=1e-5)
    before = everything(model, optimizer)
    with pytest.raises(ValueError, match=r"^loss_fn must not change the Average "):
        lb.nnx_step(model, optimizer, counting, x, metrics)
    teacher.train()
    with pytest.raises(ValueError, match=r"^loss_fn must not change the Model "):
        lb.nnx_step(model, optimizer, distill, x, teacher=teacher)
    chex.assert_trees_all_equal(everything(model, optimizer), before)


def test_a_loss_that_is_no_pair():
    model, optimizer = make(SGD)
    before = everything(model, optimizer)
    with pytest.raises(TypeError, match=r"^with has_aux=True, loss_fn must"):
        lb.nnx_step(model, optimizer, lambda m, x, y: x.mean(), *batch(), has_aux=True)
    with pytest.raises(TypeError, match=r"^loss_fn must return a real scalar"):
        lb.nnx_step(model, optimizer, loss_fn, *batch())
    chex.assert_trees_all_equal(everything(model, optimizer), before)


def test_swapped_arguments():
    model, optimizer = make(SGD)
    with pytest.raises(TypeError, match=r"^optimizer must be an nnx\.Optimizer"):
        lb.nnx_step(optimizer, model, loss_fn, *batch())


def test_statistics_among_the_parameters():
    """A module is a tree, but not of parameters only."""
    message = r"^params must hold only parameters; got an nnx\.BatchStat"
    with pytest.raises(TypeError, match=message):
        lb.sam(SGD).init(Model(nnx.Rngs(0)))
    linear = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
    assert lb.sam(SGD).init(linear).count == 0
