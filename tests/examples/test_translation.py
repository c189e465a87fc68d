"""The translator: its text, its network, its training, and what it refuses."""

from collections.abc import Callable
import dataclasses
import gzip
import json
import math
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import sacrebleu

from examples.trainer import command
from examples.trainer import config as configuration
from examples.trainer import folders
from examples.trainer import phases as phased
from examples.trainer import runs
from examples.trainer.optimizers import make_base
from examples.trainer.optimizers import make_schedule
from examples.translation import __main__ as program
from examples.translation import text
from examples.translation.config import TRANSLATION_RECIPES
from examples.translation.config import TranslationConfig
from examples.translation.training import smoothed_cross_entropy
from examples.translation.training import token_weights
from examples.translation.training import Translation
from examples.translation.transformer import EncoderDecoder
from examples.translation.transformer import translate
from tests.library.members import each

SHARED = pathlib.Path(__file__).parents[3] / "shared" / "data" / "translation"
TINY = {
    "vocabulary": 300,
    "max_length": 16,
    "layers": 1,
    "width": 16,
    "heads": 2,
    "hidden": 32,
    "batch_size": 8,
    "epochs": 2,
}


@pytest.fixture(autouse=True, scope="module")
def standard_promotion():
    """Flax's layers and Optax's Adam aren't written for strictness."""
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield


def sentences(n, seed=0):
    """Made-up sentences, and the same backwards."""
    words = ["ein", "Hund", "läuft", "schnell", "über", "die", "Straße", "und", "bellt"]
    rng = np.random.default_rng(seed)
    source = [" ".join(rng.choice(words, rng.integers(1, 5))) for _ in range(n)]
    return text.Pairs(source, [" ".join(line.split()[::-1]) for line in source])


@pytest.fixture(scope="session")
def pairs():
    return sentences(64)


@pytest.fixture(scope="session")
def tokenizer(pairs):
    return text.learn(pairs, 300)


@pytest.fixture(scope="module")
def training(tokenizer, pairs):
    """A run without dropout."""
    config = TranslationConfig(**TINY, dropout=0.0)
    return Translation(config, tokenizer, pairs, pairs)


class Network(NamedTuple):
    model: EncoderDecoder
    params: Any
    source: np.ndarray
    target: np.ndarray
    logits: Callable[..., np.ndarray]


@pytest.fixture(scope="module")
def network():
    """A network of random weights, and a batch for it."""
    model = EncoderDecoder(20, layers=2, width=16, heads=2, hidden=32)
    rng = np.random.default_rng(0)
    source, target = rng.integers(text.MARKS, 20, (2, 5, 7)).astype(np.int32)
    for row, end in enumerate((6, 3, 4, 0, 5)):
        source[row, end], source[row, end + 1 :] = text.END, text.PAD
        target[row, 6 - end], target[row, 7 - end :] = text.END, text.PAD
    apply = jax.jit(model.apply, static_argnames="train")
    params = jax.jit(model.init, static_argnames="train")(
        jax.random.key(3), source, target, train=False
    )["params"]

    def logits(source, target, params=params):
        return np.asarray(apply({"params": params}, source, target, train=False))

    return Network(model, params, source, target, logits)


def parse(arguments):
    return configuration.parse(
        TranslationConfig,
        TRANSLATION_RECIPES,
        "examples.translation",
        arguments,
    )


def write(folder, name, pairs):
    paths = folder / f"{name}.de", folder / f"{name}.en"
    for path, side in zip(paths, pairs, strict=True):
        path.write_text("".join(f"{line}\n" for line in side), encoding="utf-8")
    return paths


# What it reads.


def test_files_are_read_plain_or_compressed(tmp_path):
    lines = "Zwei Männer.\r\nEin\u2028Satz\x0b!\n\n".encode()
    (tmp_path / "a").write_bytes(lines)
    (tmp_path / "b.gz").write_bytes(gzip.compress(lines))
    read = text.read("--train", (tmp_path / "a", tmp_path / "b.gz"))
    assert read.source == read.target == ["Zwei Männer.", "Ein\u2028Satz\x0b!", ""]


@pytest.mark.parametrize(
    ("contents", "error", "message"),
    [
        ((b"a\n", None), OSError, r"^--train must name two files of text; there is no"),
        ((b"a\nb\n", b"a\n"), ValueError, r"^--train must .* has 2 and .* has 1$"),
        ((b"\n", b"a\n"), ValueError, r"^--train must name files of text; .* is empty"),
        ((b"a\n", b"\xff\n"), ValueError, r"^--train must name files of UTF-8 text"),
    ],
)
def test_files_that_it_refuses(contents, error, message, tmp_path):
    paths = tmp_path / "a", tmp_path / "b"
    for path, content in zip(paths, contents, strict=True):
        if content is not None:
            path.write_bytes(content)
    with pytest.raises(error, match=message):
        text.read("--train", paths)


def test_a_damaged_archive_is_refused(tmp_path):
    whole = gzip.compress(b"a sentence\n" * 100)
    flipped = whole[:12] + bytes([whole[12] ^ 255]) + whole[13:]
    for i, damaged in enumerate((whole[:-20], flipped, b"no archive")):
        (tmp_path / f"{i}.gz").write_bytes(damaged)
        with pytest.raises(ValueError, match=r"compressed if they end in \.gz"):
            text.read("--test", (tmp_path / f"{i}.gz", tmp_path / f"{i}.gz"))


def test_every_text_comes_back(tokenizer):
    lines = ["ein Hund läuft", "Ungesehenes: 漢字, ☃  and <end> [PAD]!", "", "(a) b-c"]
    numbers, lengths = text.encode(tokenizer, lines, 80)
    assert numbers.dtype == np.int32
    assert numbers.shape == (4, 80)
    assert np.all((numbers == text.END).sum(axis=1) == 1)
    np.testing.assert_array_equal(lengths, (numbers != text.PAD).sum(axis=1))
    assert np.all(lengths[:1] < 10)
    assert text.decode(tokenizer, numbers) == lines


def test_what_is_too_long_is_cut_or_left_out(tokenizer):
    lines = ["ein Hund " * 10, "ein Hund", "", "bellt"]
    numbers, lengths = text.encode(tokenizer, lines, 9)
    assert numbers[0, -1] == text.END
    assert lengths[0] > 9
    pairs = text.Pairs(lines, ["Hund", "ein", "Hund", "und"])
    source, target = text.encode_pairs(tokenizer, pairs, 9)
    assert text.decode(tokenizer, source) == ["ein Hund", "bellt"]
    assert text.decode(tokenizer, target) == ["ein", "und"]


def test_subwords_are_the_same_every_time(pairs):
    assert text.learn(pairs, 300).to_str() == text.learn(pairs, 300).to_str()
    assert text.size(text.learn(pairs, 270)) == 270
    with pytest.raises(ValueError, match=r"^--vocabulary must be at least 260.* got 2"):
        text.learn(pairs, 259)


# The network.


def test_logits_follow_from_what_is_before(network):
    _, _, source, target, logits = network
    changed = target.copy()
    changed[:, 4] = 3 + (changed[:, 4] - 2) % 17
    before, after = logits(source, target), logits(source, changed)
    np.testing.assert_array_equal(before[:, :5], after[:, :5])
    assert np.all(np.any(before[:, 5:] != after[:, 5:], axis=(1, 2)))


def test_padding_changes_nothing(network):
    _, _, source, target, logits = network
    wider = [np.pad(side, [(0, 0), (0, 4)]) for side in (source, target)]
    np.testing.assert_allclose(logits(*wider)[:, :7], logits(source, target), atol=2e-6)

    @jax.jit
    def loss(logits, target):
        losses = smoothed_cross_entropy(logits, target, 0.1)
        return jnp.sum(token_weights(target) * losses)

    np.testing.assert_allclose(
        loss(logits(source, target), target),
        loss(logits(*wider), wider[1]),
        rtol=1e-6,
    )


def test_every_source_token_is_seen(network):
    _, _, source, target, logits = network
    for position in range(7):
        changed = source.copy()
        changed[0, position] = 3 + (changed[0, position] + 5) % 17
        assert np.any(logits(changed, target)[0] != logits(source, target)[0])


def test_greedy_translation_is_the_argmax_step_by_step(network):
    model, params, source, _, logits = network
    # With these, one sentence ends and the others don't, and tokens differ.
    params = jax.tree.map(lambda leaf: 2 * leaf, params)
    length = 9
    translated = jax.jit(lambda source: translate(model, params, source, length))
    expected = np.full((5, length), text.PAD, np.int32)
    for i in range(length):
        going = ~np.any(expected == text.END, axis=1)
        best = logits(source, expected, params)[:, i].argmax(-1)
        expected[going, i] = best[going]
    np.testing.assert_array_equal(translated(source), expected)
    ended = np.any(expected[:, :-1] == text.END, axis=1)
    assert 0 < ended.sum() < 5


@pytest.mark.thorough
def test_the_base_model_has_the_parameters_of_the_literature():
    paper = parse(["--recipe", "paper"])
    assert 2 * paper.layers == 12
    d, hidden, vocabulary = paper.width, paper.hidden, 37_000
    model = EncoderDecoder(
        vocabulary, paper.layers, d, paper.heads, hidden, paper.dropout
    )
    tokens = jnp.zeros((1, 4), jnp.int32)
    shapes = jax.eval_shape(
        lambda: model.init(jax.random.key(0), tokens, tokens, train=False)
    )
    attention = 4 * (d * d + d)
    mlp = 2 * d * hidden + hidden + d
    norm = 2 * d
    expected = (
        vocabulary * d  # once for source, target and softmax
        + 6 * (attention + mlp + 2 * norm)
        + 6 * (2 * attention + mlp + 3 * norm)
        + 2 * norm  # after the last layers, where norms come first
    )
    counted = sum(leaf.size for leaf in jax.tree.leaves(shapes))
    assert counted == expected
    # Table 3 of Vaswani et al. 2017, for WMT's 37,000 subwords.
    assert abs(counted / 65e6 - 1) < 0.05


def test_bfloat16_computes_in_it_and_keeps_parameters(network):
    model, params, source, target, logits = network
    low = model.clone(dtype=jnp.bfloat16)
    made = jax.eval_shape(
        lambda: low.init(jax.random.key(0), source, target, train=False)
    )
    assert {leaf.dtype for leaf in jax.tree.leaves(made)} == {jnp.dtype("float32")}
    out = jax.jit(lambda: low.apply({"params": params}, source, target, train=False))()
    assert out.dtype == jnp.float32
    whole = logits(source, target)
    assert 0 < np.abs(out - whole).max() < 0.1 * np.abs(whole).max()


# The loss and the schedule.


@pytest.fixture(scope="module")
def minibatch(training):
    """Parameters, and 8 pairs with the weights of their tokens."""
    source, target = (array[:8] for array in training.feed.arrays)
    return training.init().params, source, target, token_weights(target)


def test_the_loss_is_the_mean_over_known_tokens(training, minibatch):
    params, source, target, _ = minibatch
    loss, aux = jax.jit(training.loss)(*minibatch, key=jax.random.key(1))
    apply = jax.jit(training.model.apply, static_argnames="train")
    scores = apply({"params": params}, source, target, train=False)
    scores = np.asarray(scores, np.float64)
    logs = scores - np.log(np.exp(scores).sum(-1, keepdims=True))
    losses, right = [], []
    for row, labels in zip(logs, np.asarray(target), strict=True):
        for log, label in zip(row, labels, strict=True):
            if label != text.PAD:
                share = np.full(len(log), 0.1 / len(log))
                share[label] += 0.9
                losses.append(-(share * log).sum())
                right.append(log.argmax() == label)
    assert len(losses) < target.size
    np.testing.assert_allclose(loss, np.mean(losses), rtol=1e-5)
    np.testing.assert_allclose(aux["accuracy"], np.mean(right), rtol=1e-6)


@pytest.mark.thorough
def test_smoothing_is_that_of_optax():
    scores = jax.random.normal(jax.random.key(0), (3, 5, 11))
    labels = jnp.arange(15).reshape(3, 5) % 11
    np.testing.assert_allclose(
        smoothed_cross_entropy(scores, labels, 0.2),
        optax.softmax_cross_entropy(
            scores, optax.smooth_labels(jax.nn.one_hot(labels, 11), 0.2)
        ),
        rtol=1e-5,
    )


def test_the_schedule_falls_as_the_root_of_the_steps():
    config = TranslationConfig(learning_rate=0.01, warmup=2.0, epochs=20)
    schedule = make_schedule(config, 50)
    rates = [float(schedule(step)) for step in (0, 50, 100, 400, 900)]
    np.testing.assert_allclose(rates, [0, 0.005, 0.01, 0.005, 0.01 / 3], rtol=1e-5)


def test_adam_has_its_constants():
    params = jnp.array([1.0, 2.0])
    gradient = jnp.array([0.3, -1e-9])
    made = make_base(TranslationConfig(), 0.1)
    own = optax.adam(0.1, b1=0.9, b2=0.98, eps=1e-9)
    for _ in range(2):
        updates, _ = made.update(gradient, made.init(params), params)
        np.testing.assert_array_equal(
            updates, own.update(gradient, own.init(params), params)[0]
        )
    with pytest.raises(ValueError, match=r"^--betas and --epsilon don't apply to sgd"):
        make_base(TranslationConfig(base="sgd"), 0.1)


def test_parts_of_a_minibatch_add_up(training, minibatch):
    params, *batch = minibatch
    loss = jax.jit(training.loss)
    whole, _ = loss(*minibatch, key=jax.random.key(0))
    parts = [
        loss(params, *(side[j::2] for side in batch), key=jax.random.key(0))[0]
        for j in range(2)
    ]
    np.testing.assert_allclose(whole, np.mean(parts), rtol=1e-6)
    assert abs(parts[0] - parts[1]) > 1e-3


# Its flags.


def test_every_recipe_is_a_configuration(tmp_path):
    for recipe in TRANSLATION_RECIPES:
        files = write(tmp_path, "a", (["ein"], ["one"]))
        config = parse(["--recipe", recipe, "--train", *map(str, files)])
        assert config.recipe == recipe
        assert config.train == files
        assert config.betas == (0.9, 0.98)
        assert config.schedule == "inverse-sqrt"
        assert config.switch_minibatches
        command.save(config, tmp_path / "config.json")
        again = parse(["--config", str(tmp_path / "config.json")])
        assert dataclasses.replace(again, config=None) == config


@pytest.mark.parametrize(
    ("values", "batch"),
    each(
        [
            ({}, (2, 8)),
            ({"k": 3}, (3, 8)),
            ({"switch_minibatches": False}, (8,)),
            ({"optimizer": "sam"}, (1, 8)),
            ({"optimizer": "base"}, (8,)),
        ],
        [({"k": 3}, (3, 8)), ({"switch_minibatches": False}, (8,))],
    ),
)
def test_a_minibatch_for_each_inner_step(values, batch, tokenizer, pairs):
    config = TranslationConfig(**TINY, **values)
    training = Translation(config, tokenizer, pairs, pairs)
    assert training.batch == batch
    assert training.examples_per_step == math.prod(batch)
    assert training.steps_per_epoch == 64 // math.prod(batch)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"batch_size": 40}, r"^--batch-size is too large: a step takes 80 of the 64 "),
        ({"width": 18}, r"^--width must be a multiple of twice the --heads, 4; got 18"),
        ({"warmup": 0.0}, r"^--schedule inverse-sqrt needs a --warmup"),
        (
            {"phases": ("base until 0.5", "sam until 1")},
            r"^--switch-minibatches needs one k in all --phases; got 0, 1",
        ),
    ],
)
def test_what_it_refuses(values, message, tokenizer, pairs):
    config = TranslationConfig(**TINY | values)
    with pytest.raises(ValueError, match=message):
        Translation(config, tokenizer, pairs, pairs)


def test_sentences_that_are_all_too_long_are_refused(tokenizer, pairs):
    long = text.Pairs(*([" ".join(side)] * 64 for side in pairs))
    with pytest.raises(ValueError, match=r"^--max-length is too small: no training"):
        Translation(TranslationConfig(**TINY), tokenizer, long, pairs)


def test_the_program_says_what_is_missing(tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        program.main([])
    said = capsys.readouterr().err
    assert said.startswith("Error: --train and --valid must each name")
    files = ["--train", "no.de", "no.en", "--valid", "no.de", "no.en"]
    missing = r"^Error: --train must be a file .*no\.de\n--valid must"
    with pytest.raises(SystemExit, match="2"):
        program.main([*files, "--output", str(tmp_path)])
    assert re.search(missing, capsys.readouterr().err)


# What it does.


@pytest.mark.thorough
def test_a_finished_run_is_tested_again(tokenizer, pairs, tmp_path):
    """On other files, which the summary names, and after its checkpoints are lost."""
    config, folder = TranslationConfig(**TINY | {"epochs": 1}), tmp_path / "run"
    training = Translation(config, tokenizer, pairs, pairs)
    for name in ("first", "second"):
        test = (tmp_path / "texts" / f"{name}.de", tmp_path / "texts" / f"{name}.en")
        for path in test:
            path.parent.mkdir(exist_ok=True)
            path.touch()
        training.config = dataclasses.replace(config, test=test)
        summary = runs.run(training.config, training, folder)
        program.finish(training, folder, summary, pairs)
        saved = json.loads((folder / "summary.json").read_text())
        assert saved["config"]["test"] == [str(path) for path in test]
    shutil.rmtree(folder / "checkpoints")
    with pytest.raises(ValueError, match=r"delete summary\.json there and run the tr"):
        runs.final_state(training, folder)
    (folder / "summary.json").unlink()
    runs.run(training.config, training, folder)
    assert runs.final_state(training, folder).step == training.steps


@pytest.mark.slow
def test_a_stopped_run_resumes_to_the_same_end(tokenizer, pairs, tmp_path, monkeypatch):
    config = TranslationConfig(**TINY)
    training = Translation(config, tokenizer, pairs, pairs)
    summary = runs.run(config, training, tmp_path / "whole")
    assert summary["gradient_evaluations"] == 2 * 4 * 3
    whole = (tmp_path / "whole/log.jsonl").read_text()
    first, last = map(json.loads, whole.splitlines())
    assert last["valid_loss"] < first["valid_loss"]
    assert summary["final_valid_bleu"] == last["valid_bleu"]

    advance = phased.Phased.advance

    def interrupted(self, state, start, stop):
        if start == 5:
            signal.raise_signal(signal.SIGTERM)
        return advance(self, state, start, min(stop, start + 1))

    with monkeypatch.context() as patched:
        patched.setattr(phased.Phased, "advance", interrupted)
        patched.setattr(training, "scans", False)
        # One step a call, so that the signal comes in the middle of an epoch.
        patched.setattr(runs, "agree", lambda asked, quick: (asked, False))
        with pytest.raises(runs.Stopped, match="saved at step 6"):
            runs.run(config, training, tmp_path / "stopped")
    runs.run(config, training, tmp_path / "stopped")
    assert (tmp_path / "stopped/log.jsonl").read_text() == whole
    states = [runs.final_state(training, tmp_path / x) for x in ("whole", "stopped")]
    jax.tree.map(np.testing.assert_array_equal, *states)


@pytest.fixture
def begun(tmp_path):
    """Configuration of a run that has only just begun, and what begins it again."""
    train = write(tmp_path, "train", sentences(64))
    valid = write(tmp_path, "valid", sentences(16, 1))
    folder = tmp_path / "run"
    config = TranslationConfig(**TINY, train=train, valid=valid, output=folder)

    def begin():
        pairs, valid_pairs = text.read("--train", train), text.read("--valid", valid)
        training = program.prepare(config, folder, pairs, valid_pairs)
        with folders.claimed(config, folder, training.fingerprint, training.files):
            return text.size(training.tokenizer)

    begin()
    return config, begin


def test_a_run_keeps_its_subwords(begun):
    config, begin = begun
    assert begin() == begin()
    other = text.learn(sentences(64, 1), 290)
    other.save(str(config.output / "tokenizer.json"))
    with pytest.raises(ValueError, match=r"other data: tokenizer\.json has changed"):
        begin()


@pytest.mark.parametrize("held", each([b"", b"{}", b"\xff"], [b"{}"]))
def test_damaged_subwords_are_named(held, begun):
    config, begin = begun
    path = config.output / "tokenizer.json"
    path.write_bytes(held)
    with pytest.raises(ValueError, match=r"/tokenizer\.json is damaged \(.*\)\. R"):
        begin()
    assert path.read_bytes() == held


@pytest.mark.parametrize(
    "changed",
    each(["train.de", "train.en", "valid.de", "valid.en"], ["train.de", "valid.en"]),
)
def test_texts_that_changed_are_refused(changed, begun, tmp_path):
    _, begin = begun
    path = tmp_path / changed
    path.write_text(path.read_text().replace("bellt", "singt"))
    with pytest.raises(ValueError, match=rf"other data: .*/{changed} has changed\. R"):
        begin()


def test_bleu_is_that_of_sacrebleu(training, pairs):
    said = ["A dog runs , quickly.", *pairs.target[1:]]
    expected = sacrebleu.corpus_bleu(said, [pairs.target]).score
    assert training.bleu(said, pairs) == expected
    assert training.bleu(pairs.target, pairs) == pytest.approx(100)


def start(folder, output, *more):
    """Runs the command on made-up text, as a user does."""
    files = []
    for name, pairs in (("train", sentences(256)), ("valid", sentences(16, 1))):
        files += [f"--{name}", *map(str, write(folder, name, pairs))]
    files += ["--test", *files[4:6]]
    flags = [f"--{k.replace('_', '-')}={v}" for k, v in TINY.items()]
    command = [sys.executable, "-m", "examples.translation", *files, *flags, *more]
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    return subprocess.Popen(
        [*command, "--output", str(output)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.slow
def test_killed_it_ends_the_same(tmp_path):
    for name in ("killed", "whole"):
        process = start(tmp_path, tmp_path / name, "--save-every", "5")
        if name == "killed":
            while not list((tmp_path / name).glob("checkpoints/[0-9]*")):
                time.sleep(0.05)
                assert process.poll() is None
            process.kill()
            process.communicate()
            process = start(tmp_path, tmp_path / name, "--save-every", "5")
        output, _ = process.communicate(timeout=300)
        assert process.returncode == 0, output
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    for file in ("log.jsonl", "test.txt", "tokenizer.json"):
        assert (killed / file).read_bytes() == (whole / file).read_bytes()
    assert len((whole / "test.txt").read_text().splitlines()) == 16
    assert (whole / "plots.png").read_bytes().startswith(b"\x89PNG")
    summary = json.loads((whole / "summary.json").read_text())
    assert summary["bleu_signature"].startswith("nrefs:1|case:mixed|eff:no|tok:13a")
    for said in ("256 of 256 training pairs", "test BLEU", "reference "):
        assert said in output


@pytest.mark.slow
@pytest.mark.parametrize(
    "values",
    [
        {},
        {"reuse_gradients": False, "alpha": "adaptive", "precision": "bf16"},
        {"optimizer": "sam", "switch_minibatches": False, "micro_batches": 2},
        {"mesh": ("data=2", "fsdp=4"), "lookahead": 3},
        {"optimizer": "lookbehind_asam", "m": 16},
    ],
)
def test_it_learns_to_reverse_sentences(values, tokenizer, tmp_path):
    size = {"width": 64, "hidden": 128, "epochs": 30, "batch_size": 32}
    more = {"learning_rate": 5e-3, "warmup": 3.0, "dropout": 0.0}
    config = TranslationConfig(**TINY | size | more | values)
    train, valid = sentences(1024), sentences(32, 1)
    training = Translation(config, tokenizer, train, valid)
    assert runs.run(config, training, tmp_path)["final_valid_bleu"] > 50


@pytest.mark.skipif(not SHARED.exists(), reason=f"no text in {SHARED}")
def test_real_text_comes_back():
    files = [SHARED / "multi30k" / f"val.{language}.gz" for language in ("de", "en")]
    pairs = text.read("--valid", tuple(files))
    assert len(pairs.source) == 1014
    tokenizer = text.learn(pairs, 2000)
    for side in pairs:
        numbers, lengths = text.encode(tokenizer, side, 100)
        assert lengths.max() <= 100
        assert text.decode(tokenizer, numbers) == side
