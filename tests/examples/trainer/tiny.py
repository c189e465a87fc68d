"""A training of two numbers, which takes no time, for tests of what is around it."""

import json
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from examples.trainer import meshes
from examples.trainer import runs
from examples.trainer.command import settings
from examples.trainer.config import RunConfig
from examples.trainer.optimizers import Phase


class State(NamedTuple):
    step: jax.Array
    params: Any
    sums: dict[str, jax.Array]


class Tiny:
    """Three epochs of four steps; `changes` replace what a step sees or does.

    The loss of a step is that before its update, as in all trainings.
    """

    unit = "examples"
    goal = "accuracy"
    scans = False
    steps_per_epoch = 4
    examples_per_step = 1

    def __init__(self, epochs=3, size=2, changes=None, dtype=jnp.float32):
        self.size, self.dtype = size, dtype
        self.changes = changes or {}
        self.steps = epochs * self.steps_per_epoch
        self.phases: Any = [Phase("base", self.steps, None, 0, 1)]
        self.schedule = lambda step: 0.1
        self.shapes = meshes.layout(()).shapes(self.init)

    def init(self):
        params = jnp.arange(1, 1 + self.size, dtype=self.dtype)
        sums = {"loss": jnp.float32(0), "grad_norm": jnp.float32(0)}
        return State(jnp.int32(0), params, sums)

    def advance(self, state, start, stop):
        step, params, sums = jax.tree.map(np.asarray, state)
        assert step == start
        for step in range(start, stop):
            change = self.changes.get(step, {})
            seen = {"loss": np.sum(params**2), "grad_norm": 1.0, **change}
            sums = {
                name: np.float32(seen[name]) + (value if step % 4 else np.float32(0))
                for name, value in sums.items()
            }
            params = params - np.asarray(0.1 * np.sin(params + step), params.dtype)
            params = params * np.asarray(change.get("factor", 1), params.dtype)
        return jax.tree.map(jnp.asarray, State(np.int32(stop), params, sums))

    def conclude(self, state):
        return {}

    def evaluate(self, state):
        change = self.changes.get(int(state.step) - 1, {})
        return {"accuracy": change.get("accuracy", float(state.params[0]))}


@settings
class TinyConfig(RunConfig):
    """Its settings, with a recipe as all programs have."""

    recipe: str = "tiny"


def train(folder, training=None, **values):
    return runs.run(TinyConfig(**values), training or Tiny(), folder)


def names(folder):
    """Of the checkpoints of a run, and of what was one."""
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


def log(folder):
    return [
        json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()
    ]


def outcome(folder, training=None):
    """Log and state of a finished run."""
    state = runs.final_state(training or Tiny(), folder)
    return log(folder), jax.tree.map(lambda leaf: np.asarray(leaf).tolist(), state)
