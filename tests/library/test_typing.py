"""What a type checker says to a user in strict mode: nothing that is ours.

JAX, Optax and Flax have types that aren't known in all their parts, and strict mode
says so wherever a program names such a thing. An error is theirs, by its rule, where it
says that a type is unknown, and the source that it is about names a member of theirs.
"""

import inspect
import json
import pathlib
import re
import subprocess
import sys

import pytest

import lookbehind_optax as lb
from lookbehind_optax import measure
from tests.test_pages import blocks
from tests.test_pages import ROOT

PROGRAM = '''
"""A user's program, with annotations."""

from typing import Any

import equinox as eqx
from flax import nnx
import flax.linen as nn
from flax.training import train_state
import jax
import jax.numpy as jnp
import optax

import lookbehind_optax as lb

Params = dict[str, jax.Array]


def loss_fn(params: Params, x: jax.Array) -> jax.Array:
    return jnp.mean((x @ params["w"] + params["b"]) ** 2)


def loss_with_aux(params: Params, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    return loss_fn(params, x), x.mean()


def plain(params: Params, x: jax.Array) -> Params:
    base = optax.sgd(0.1)
    optimizer = lb.lookahead(
        lb.lookbehind_asam(base, 0.5, 3, lb.adaptive_alpha(), pullback="pullback"),
        outer=optax.sgd(0.7),
    )
    state = optimizer.init(params)
    step = lb.make_step(loss_fn, optimizer, micro_batches=2, fresh_keys=False)
    params, state, out = step(params, state, x)
    reveal_type(params)  # dict[str, Array]
    reveal_type(out)  # StepOutput
    reveal_type(out.loss)  # Array
    reveal_type(out.grad_norm)  # Array
    slow = lb.eval_params(state, params)
    reveal_type(slow)  # dict[str, Array]
    return slow


def members(base: optax.GradientTransformation) -> None:
    schedule = optax.constant_schedule(0.1)
    lb.sam(base, schedule, mask={"w": True, "b": False}, axis_name="data")
    lb.asam(base, 0.5, eta=0.01, weights=lambda path, leaf: leaf.ndim > 1)
    lb.multistep_sam(base, 0.05, 3, average=True)
    lb.gsam(base, 0.05, schedule)
    lb.wsam(base, 0.05, 0.9)
    lb.friendly_sam(base, 0.05, 1.0, 0.9)
    lb.lookbehind_sam(base, rho=jnp.float32(0.1), k=2, alpha=schedule)
    direction = lb.random_direction(jax.random.key(0))
    optimizer = lb.sharpness_aware(base, direction, lb.mean_descent(), 0.05, 2)
    reveal_type(optimizer)  # GradientTransformationExtraArgs


def halfway() -> lb.Descent:
    def start(step: lb.Step) -> Any:
        return step.grads

    def after_ascent(step: lb.Step, carry: Any, i: jax.Array, g: Any) -> Any:
        return carry

    def finish(step: lb.Step, carry: Any, g: Any) -> tuple[Any, Any, Any]:
        update, state = step.base.update(g, step.base_state, step.params)
        return update, 1.0, state

    return lb.Descent(start, after_ascent, finish)


def fields(state: lb.SharpnessAwareState) -> jax.Array:
    return state.grad_norm + state.perturbed_loss + state.alpha


class TrainState(train_state.TrainState):
    batch_stats: Any


def linen(state: TrainState, x: jax.Array) -> TrainState:
    state, out = lb.linen_step(
        state, loss_with_aux, x, has_aux=True, mutable=["batch_stats"]
    )
    reveal_type(state)  # TrainState
    reveal_type(out)  # StepOutput
    return state


class Model(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.out = nnx.Linear(2, 1, rngs=rngs)


def of_model(model: Model, x: jax.Array, rngs: nnx.Rngs) -> jax.Array:
    return x.mean()


def with_nnx(model: Model, optimizer: nnx.Optimizer[Model], x: jax.Array) -> None:
    out = lb.nnx_step(model, optimizer, of_model, x, nnx.Rngs(0))
    reveal_type(out)  # StepOutput


class Module(eqx.Module):
    kernel: jax.Array


def of_module(module: Module, x: jax.Array) -> tuple[jax.Array, lb.ModelState]:
    return jnp.mean(x @ module.kernel), lb.ModelState({"n": 1})


def with_equinox(module: Module, x: jax.Array) -> Module:
    optimizer = lb.sam(optax.sgd(0.1))
    state = optimizer.init({"kernel": module.kernel})
    step = lb.make_step(of_module, optimizer, has_aux=True)
    module, state, out = step(module, state, x, dynamic_scale=None)
    reveal_type(module)  # Module
    module = lb.eval_params(state, module)
    reveal_type(module)  # Module
    reveal_type(out.finite)  # Array | None
    return module


class LinenModel(nn.Module):
    pass
'''

THEIRS = ("jax.", "jnp.", "optax.", "nn.", "nnx.", "eqx.", "train_state.")
UNKNOWN = "reportUnknown"


MISTAKES = """
import optax
import lookbehind_optax as lb

base = optax.sgd(0.1)
lb.sam(base, rho="0.1")
lb.lookbehind_sam(base, k=2.5)
lb.sharpness_aware(base, lb.sam_direction(), "last")
lb.lookahead(base, pull_back="none")
lb.eval_params(params=1)
lb.sam(base).updates
"""
FILES = {
    "program": PROGRAM,
    "mistakes": MISTAKES,
    "readme": "\n".join(blocks(ROOT / "README.md")),
}


@pytest.fixture(scope="module")
def findings(tmp_path_factory):
    """What the type checker says in strict mode of each file.

    Everything comes with the source it is about, and the line. One run for all files,
    since most of it goes to JAX's own.
    """
    folder = tmp_path_factory.mktemp("typing")
    for name, text in FILES.items():
        (folder / f"{name}.py").write_text(text)
    config = {"include": ["."], "typeCheckingMode": "strict", "extraPaths": [str(ROOT)]}
    (folder / "pyrightconfig.json").write_text(json.dumps(config))
    python = f"--pythonpath={sys.executable}"
    command = [sys.executable, "-m", "pyright", python, "--outputjson", "--project"]
    run = subprocess.run([*command, str(folder)], capture_output=True, text=True)
    report = json.loads(run.stdout)
    assert report["summary"]["filesAnalyzed"] == len(FILES), run.stderr
    said = {name: [] for name in FILES}
    for found in report["generalDiagnostics"]:
        name = pathlib.Path(found["file"]).stem
        start, end = found["range"]["start"], found["range"]["end"]
        of_lines = FILES[name].splitlines()[start["line"] : end["line"] + 1]
        source = "\n".join(of_lines)[start["character"] :]
        if len(of_lines) == 1:
            source = source[: end["character"] - start["character"]]
        said[name].append((found, source, of_lines[0]))
    return said


@pytest.mark.thorough
def test_a_users_program(findings):
    """Types of parameters, states and models come back as they were."""
    ours, revealed = [], []
    for found, source, line in findings["program"]:
        rule, message = found.get("rule", ""), found["message"]
        if found["severity"] == "information":
            (is_,) = re.findall(r'is "(.*)"$', message)
            revealed.append((line.split("#")[1].strip(), is_))
        elif rule == "reportMissingTypeStubs" and "lookbehind" not in message:
            pass  # packages without a py.typed
        elif rule.startswith(UNKNOWN) and source.startswith(THEIRS):
            pass
        else:
            ours.append(f"{line.strip()}  {rule}: {message}")
    assert not ours, "\n".join(ours)
    assert len(revealed) == PROGRAM.count("reveal_type(")
    for wanted, got in revealed:
        assert got == wanted


@pytest.mark.thorough
def test_a_users_mistakes_are_found(findings):
    """What is said of nothing would be said of anything, if names weren't typed."""
    rules = [
        found["rule"]
        for found, _, line in findings["mistakes"]
        if line.startswith("lb.") and not found["rule"].startswith(UNKNOWN)
    ]
    assert sorted(set(rules)) == [
        "reportArgumentType",
        "reportAttributeAccessIssue",
        "reportCallIssue",
    ]
    assert rules.count("reportArgumentType") == 3
    assert rules.count("reportCallIssue") == 2


def functions(module):
    return {name for name, value in vars(module).items() if inspect.isfunction(value)}


@pytest.mark.thorough
def test_the_readmes_examples(findings):
    """They are short, without annotations, so that much of them is of unknown type.

    What is ours is known: a member of this library has a type without unknown parts,
    and everything else that is said is about a function of another one.
    """
    names = functions(lb) | functions(measure)
    brief = ("reportMissing", "reportDuplicateImport", "reportPossiblyUnbound")
    ours = []
    for found, source, line in findings["readme"]:
        rule, message = found.get("rule", ""), found["message"]
        if rule.startswith(UNKNOWN):
            of_member = rule == "reportUnknownMemberType"
            mine = of_member and source.startswith(("lb.", "measure."))
        elif rule.startswith(brief):
            mine = "lookbehind" in message
        else:
            function = re.findall(r'in function "(\w+)"', message)
            mine = not function or bool(names & set(function))
        if mine:
            ours.append(f"{line.strip()}  {rule}: {message}")
    assert not ours, "\n".join(ours)


@pytest.mark.parametrize("name", sorted(functions(lb)))
def test_every_argument_and_result_has_a_type(name):
    for parameter in inspect.signature(getattr(lb, name)).parameters.values():
        assert parameter.annotation is not inspect.Parameter.empty, parameter
    annotation = inspect.signature(getattr(lb, name)).return_annotation
    assert annotation is not inspect.Signature.empty
