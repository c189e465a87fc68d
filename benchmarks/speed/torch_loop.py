"""PyTorch's side of `peers`: the original procedure, and another's SAM.

The loop is Algorithm 1 of Mordido et al. 2024 as one writes it in PyTorch, with the 2k
gradients of the original: each inner step takes one gradient to ascend, and another to
descend. It is written for this benchmark, and isn't anybody else's code.
"""

# pyright: reportMissingImports=false
# PyTorch is no dependency of anything else here.

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from benchmarks.speed import torch_networks
from benchmarks.speed.networks import DECODERS
from benchmarks.speed.networks import Network
from benchmarks.speed.precisions import Precision

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


class Lookbehind:
    """Lookbehind-SAM over any PyTorch optimizer, with 2k gradients a step.

    Attributes:
      base: optimizer of the model's parameters, which steps the fast weights.
      rho: ρ.
      k: number of ascent steps.
      alpha: α.
    """

    def __init__(self, base: torch.optim.Optimizer, rho: float, k: int, alpha: float):
        """Collects all parameters of the base."""
        self.base, self.rho, self.k, self.alpha = base, rho, k, alpha
        self.params = [p for group in base.param_groups for p in group["params"]]

    def step(self, loss: Any) -> None:
        """One step on a function that returns the loss at the current parameters."""
        slow = [p.detach().clone() for p in self.params]
        fast = [p.detach().clone() for p in self.params]
        # The parameters hold the perturbed weights, but while the base steps.
        for _ in range(self.k):
            self.differentiate(loss)
            with torch.no_grad():
                norms = torch.stack([p.grad.norm() for p in self.params])
                scale = self.rho / (norms.norm() + 1e-16)
                for p in self.params:
                    p.add_(p.grad * scale)
            self.differentiate(loss)
            with torch.no_grad():
                perturbed = [p.clone() for p in self.params]
                self.put(fast)
                self.base.step()
                fast = [p.clone() for p in self.params]
                self.put(perturbed)
        with torch.no_grad():
            for p, f, s in zip(self.params, fast, slow, strict=True):
                p.copy_(s + self.alpha * (f - s))

    def differentiate(self, loss: Any) -> None:
        """Puts gradients into the parameters."""
        self.base.zero_grad()
        loss().backward()

    def put(self, values: list[torch.Tensor]) -> None:
        """Puts values into the parameters."""
        for p, value in zip(self.params, values, strict=True):
            p.copy_(value)


def torch_batch(batch: Any) -> Any:
    """PyTorch's copy of a batch, images as it wants them."""
    if isinstance(batch, tuple):
        images, labels = (
            torch.tensor(np.asarray(part), device=DEVICE) for part in batch
        )
        images = images.permute(0, 3, 1, 2)  # which leaves the channels last in memory
        images = images if DEVICE == "cuda" else images.contiguous()
        return images, labels.long()
    return torch.tensor(np.asarray(batch), device=DEVICE).long()


def of_torch(
    name: str, network: Network, precision: Precision
) -> tuple[Any, Callable[[Any], torch.Tensor]]:
    """A twin with the same weights, and a function from it to its loss on the batch."""
    model, loss_fn = torch_networks.twin(name)
    assert sum(p.numel() for p in model.parameters()) == network.size
    torch_networks.copy_weights(network.params, model)
    model = model.to(DEVICE)
    if DEVICE == "cuda" and name not in DECODERS:
        model = model.to(memory_format=torch.channels_last)
    batch = torch_batch(network.batch)

    def loss(model):
        with torch.autocast(DEVICE, torch.bfloat16, enabled=precision == "bf16"):
            return loss_fn(model, batch)

    return model, loss


def waited(step: Callable[[], Any]) -> Callable[[], None]:
    """A step that waits until PyTorch has finished it."""

    def run():
        step()
        if DEVICE == "cuda":
            torch.cuda.synchronize()

    return run


def steps(
    name: str,
    network: Network,
    precision: Precision,
    *,
    rho: float,
    k: int,
    rate: float,
    momentum: float,
    compiles: bool,
) -> dict[str, Callable[[], None]]:
    """Steps over SGD with momentum, by name, and compiled ones on request."""
    torch.set_float32_matmul_precision("highest" if precision == "fp32" else "high")
    torch.backends.cudnn.allow_tf32 = precision != "fp32"
    found = {}
    for compiled in (False, True) if compiles else (False,):
        model, loss = of_torch(name, network, precision)
        sgd = torch.optim.SGD(model.parameters(), lr=rate, momentum=momentum)
        loop = Lookbehind(sgd, rho, k, 1 / k)
        model = torch.compile(model) if compiled else model
        found[f"PyTorch{' compiled' * compiled}, 2k gradients"] = waited(
            lambda loop=loop, loss=loss, model=model: loop.step(lambda: loss(model))
        )
    if k == 1:
        import pytorch_optimizer  # which has no other SAM to compare with

        model, loss = of_torch(name, network, precision)
        sam = pytorch_optimizer.SAM(
            model.parameters(), torch.optim.SGD, rho=rho, lr=rate, momentum=momentum
        )

        def step():
            loss(model).backward()
            sam.first_step(zero_grad=True)
            loss(model).backward()
            sam.second_step(zero_grad=True)

        found["pytorch_optimizer.SAM"] = waited(step)
    return found
