"""Shared by the tests of lifelong learning: the digits, and a network for them."""

import flax.linen as nn
import pytest

from examples.images import data
from examples.images.models import MODELS
from examples.lifelong.config import Lifelong


@pytest.fixture(autouse=True)
def every_test_is_lenient(standard_promotion):
    """As Flax's layers need it."""


@pytest.fixture(scope="session")
def digits():
    return data.load("digits")


class Tiny(nn.Module):
    """Compiles in no time."""

    classes: int = 10

    @nn.compact
    def __call__(self, images):
        x = images.reshape(len(images), -1)
        return nn.Dense(self.classes, name="head")(nn.tanh(nn.Dense(16)(x)))


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setitem(MODELS, "tiny", Tiny)
    return Lifelong(
        model="tiny",
        images_per_task=60,
        inner_steps=2,
        seeds=2,
        learning_rate=0.1,
        meta_learning_rate=0.2,
    )
