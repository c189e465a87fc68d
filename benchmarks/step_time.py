"""What a step costs: time, FLOPs and memory over those of its k + 1 gradients.

    python -m benchmarks.step_time

Each step, made by `make_step`, is timed beside k + 1 calls of the jitted gradient alone
and beside the bare update of its optimizer, in turns and after a warm-up, and compared
within each turn, so that a machine that is slow for a while is slow for all three.
Temporary memory is what XLA plans for the compiled step beyond arguments and results,
less that of the compiled gradient, in copies of the parameters.
"""

import argparse
import json
import pathlib
import statistics
import time
from typing import Any

import jax
import jax.numpy as jnp
import optax
from tqdm import tqdm

from examples.models import Transformer
from examples.models import WideResNet
from examples.provenance import provenance
import lookbehind_optax as lb

BASE = optax.sgd(0.1, momentum=0.9)
MEMBERS = {
    "multistep_sam": lambda k: lb.multistep_sam(BASE, k=k),
    "lookbehind_sam": lambda k: lb.lookbehind_sam(BASE, k=k),
    "lookbehind_sam_adaptive": lambda k: lb.lookbehind_sam(
        BASE, k=k, alpha=lb.adaptive_alpha()
    ),
    "lookbehind_asam": lambda k: lb.lookbehind_asam(BASE, k=k),
}


def wrn_16_2():
    """WRN-16-2 on a batch of 64 images of 32×32."""
    model = WideResNet(depth=16, width=2)
    x = jax.random.normal(jax.random.key(0), (64, 32, 32, 3))
    y = jnp.arange(64) % 10
    variables = model.init(jax.random.key(1), x)

    def loss(params):
        logits, _ = model.apply(
            {**variables, "params": params}, x, mutable=["batch_stats"]
        )
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    return loss, variables["params"]


def transformer():
    """A decoder of two layers of width 128 on 16 sequences of 64 tokens."""
    model = Transformer()
    tokens = jax.random.randint(jax.random.key(0), (16, 64), 0, 512)
    params = model.init(jax.random.key(1), tokens)

    def loss(params) -> jax.Array:
        logits: Any = model.apply(params, tokens[:, :-1])
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:])
        return losses.mean()

    return loss, params


MODELS = {"wrn-16-2": wrn_16_2, "transformer": transformer}


def seconds(function, *arguments, calls=1):
    """Wall time of `calls` calls, one after the other, each waited for."""
    start = time.perf_counter()
    for _ in range(calls):
        jax.block_until_ready(function(*arguments))
    return time.perf_counter() - start


def measure(model, members, ks, repetitions):
    """One row for each member and k."""
    loss, params = MODELS[model]()
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    gradient: Any = jax.jit(jax.grad(loss)).lower(params).compile()
    grid = [(name, k) for k in ks for name in members]
    for name, k in (progress := tqdm(grid, desc=model, unit="step")):
        progress.set_postfix_str(f"{name}, k = {k}")
        optimizer = MEMBERS[name](k)

        def bare(params, state, optimizer=optimizer):
            updates, state = optimizer.update(
                jax.grad(loss)(params),
                state,
                params,
                grad_fn=lambda p, i: jax.grad(loss)(p),
            )
            return optax.apply_updates(params, updates), state

        state = optimizer.init(params)
        step = jax.jit(lb.make_step(loss, optimizer))
        start = time.perf_counter()
        compiled: Any = step.lower(params, state).compile()
        compile_seconds = time.perf_counter() - start
        compiled_bare: Any = jax.jit(bare).lower(params, state).compile()

        seconds(gradient, params)
        seconds(compiled, params, state)
        seconds(compiled_bare, params, state)
        samples = [
            {
                "gradients_s": seconds(gradient, params, calls=k + 1),
                "bare_s": seconds(compiled_bare, params, state),
                "step_s": seconds(compiled, params, state),
            }
            for _ in range(repetitions)
        ]
        flops = [c.cost_analysis()["flops"] for c in (compiled, gradient)]
        memory = [c.memory_analysis() for c in (compiled, gradient)]
        extra = memory[0].temp_size_in_bytes - memory[1].temp_size_in_bytes
        yield {
            "model": model,
            "member": name,
            "k": k,
            "parameters": size // 4,
            "compile_s": compile_seconds,
            "flops_over_gradients": flops[0] / flops[1] / (k + 1),
            "temporary_parameter_copies": extra / size,
            "samples": samples,
        }


def table(rows):
    """The rows as Markdown: medians, with the range over the repetitions."""
    lines = [
        "| model | member | k | step (ms) | over k + 1 gradients | FLOPs over them "
        "| over the bare update | extra memory (parameter copies) | compile (s) |",
        "|---|---|---|---|---|---|---|---|---|",
    ]

    def ratio(row, other):
        ratios = [s["step_s"] / s[other] for s in row["samples"]]
        return f"{statistics.median(ratios):.3f} ({min(ratios):.3f}–{max(ratios):.3f})"

    for row in rows:
        step = statistics.median(s["step_s"] for s in row["samples"])
        lines.append(
            f"| {row['model']} | {row['member']} | {row['k']} | {1000 * step:.1f} "
            f"| {ratio(row, 'gradients_s')} | {row['flops_over_gradients']:.4f} "
            f"| {ratio(row, 'bare_s')} "
            f"| {row['temporary_parameter_copies']:.2f} | {row['compile_s']:.1f} |"
        )
    return "\n".join(lines)


def main():
    """Measures, prints a table and writes every sample as JSON."""
    platform = jax.devices()[0].platform
    parser = argparse.ArgumentParser(
        description="Time, FLOPs and memory of a step over those of its k + 1 "
        "gradients. Prints a Markdown table and writes every sample as JSON.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "--models",
        nargs="+",
        choices=MODELS,
        default=list(MODELS),
        metavar="NAME",
        help="networks: " + ", ".join(MODELS),
    )
    parser.add_argument(
        "--members",
        nargs="+",
        choices=MEMBERS,
        default=list(MEMBERS),
        metavar="NAME",
        help="optimizers: " + ", ".join(MEMBERS),
    )
    parser.add_argument(
        "--k",
        nargs="+",
        type=int,
        default=[1, 2, 5, 10],
        metavar="K",
        help="numbers of inner steps",
    )
    parser.add_argument(
        "--repetitions",
        type=int,
        default=7,
        metavar="N",
        help="timed pairs for each row",
    )
    parser.add_argument(
        "--output",
        type=pathlib.Path,
        default=pathlib.Path(f"benchmarks/results/step_time_{platform}.json"),
        metavar="FILE",
        help="where to write every sample, as JSON; replaced if it exists",
    )
    arguments = parser.parse_args()
    if arguments.repetitions < 1:
        parser.error(f"--repetitions must be at least 1; got {arguments.repetitions}")
    if min(arguments.k) < 0:
        parser.error(f"--k must not be negative; got {min(arguments.k)}")
    output = arguments.output
    output.parent.mkdir(parents=True, exist_ok=True)

    rows = []
    for model in arguments.models:
        measured = measure(model, arguments.members, arguments.k, arguments.repetitions)
        rows.extend(measured)
    output.write_text(json.dumps({**provenance(), "rows": rows}, indent=1) + "\n")
    print(table(rows))
    print(f"\nEvery sample is in {output}.")


if __name__ == "__main__":
    main()
