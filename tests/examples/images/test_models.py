"""The networks of the examples against the literature, and pretrained weights."""

from collections.abc import Iterator
import functools
import math
from typing import Any

import chex
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file
from scipy.special import erf

from examples.images.models import MODELS
from examples.images.models import neighborhoods
from examples.images.models import ResNet
from examples.images.models import VisionTransformer
from examples.images.models import WideResNet
from examples.images.pretrained import load_vit
from tests.library.members import each

# Of kuangliu/pytorch-cifar, torchvision and xternalz/WideResNet-pytorch (36.5M and
# 11.0M in the WRN paper), without BatchNorm's statistics; by hand for the last five,
# conv3 and conv4 from the layers in Look-ahead MAML's code.
PARAMETERS = {
    "resnet18": 11_173_962,
    "resnet34": 21_282_122,
    "resnet50": 23_520_842,
    "resnet18-imagenet": 11_689_512,
    "resnet34-imagenet": 21_797_672,
    "resnet50-imagenet": 25_557_032,
    "wrn-10-1": 77_850,
    "wrn-16-2": 691_674,
    "wrn-16-4": 2_748_890,
    "wrn-16-8": 10_961_370,
    "wrn-28-2": 1_467_610,
    "wrn-28-10": 36_479_194,
    "vit-b16": 86_567_656,
    "vit-small": 21_342_346,
    "vit-micro": 459_562,
    # 12 352 + 64 + 1 088 to embed, 4 layers of 49 984, 128 + 650 for norm and head.
    "vit-nano": 214_218,
    "mlp": 3073 * 512 + 513 * 512 + 513 * 10,
    "convnet": 25_578,
    "convnet-bn": 25_578 + 2 * (16 + 32),
    "convnet-bn-hidden": 448 + 4_640 + 2 * (16 + 32) + 2_049 * 256 + 257 * 10,
    "conv3": 1_391_050,
    "conv4": 1_523_050,
    "conv3-narrow": 57_034,
}
# For `make test`.
ONE_OF_EACH = {
    *("resnet18", "wrn-16-2", "vit-micro"),
    *("convnet-bn", "conv3-narrow"),
}


def build(name, dtype=jnp.float32) -> Any:
    """A network of `MODELS`, of as many classes as the literature's."""
    large = name.endswith("-imagenet") or name == "vit-b16"
    return MODELS[name](classes=1000 if large else 10, dtype=dtype)


def images_of(name, batch=2):
    """The shape and dtype of a batch of images for a network of `MODELS`."""
    side = 224 if build(name).classes == 1000 else 32
    return jax.ShapeDtypeStruct((batch, side, side, 3), jnp.float32)


def lenient():
    """Standard promotion: Flax's norms mix their float32 with what they normalize."""
    return jax.numpy_dtype_promotion("standard")


@functools.cache
def abstract(name):
    """Shapes and dtypes of the variables of a network that computes in bfloat16."""
    with lenient():
        init = build(name, jnp.bfloat16).init
        return jax.eval_shape(init, jax.random.key(0), images_of(name))


@pytest.mark.parametrize("name", each(MODELS, ONE_OF_EACH))
def test_parameters_are_the_literatures_and_float32(name):
    params = jax.tree.leaves(abstract(name)["params"])
    assert sum(leaf.size for leaf in params) == PARAMETERS[name]
    assert {leaf.dtype for leaf in params} == {jnp.dtype(jnp.float32)}


def products(jaxpr) -> Iterator[Any]:
    """The convolutions and matrix products of a program."""
    for equation in jaxpr.eqns:
        if equation.primitive.name in ("conv_general_dilated", "dot_general"):
            yield equation
        for value in equation.params.values():
            if hasattr(value, "jaxpr"):
                yield from products(value.jaxpr)


@pytest.mark.parametrize("dtype", each([jnp.float32, jnp.bfloat16], [jnp.bfloat16]))
@pytest.mark.parametrize("name", each(MODELS, ONE_OF_EACH))
def test_logits_are_float32_and_what_precedes_them_is_of_the_dtype(name, dtype):
    model, variables, images = build(name, dtype), abstract(name), images_of(name)

    def apply(variables, images, key):
        return model.apply(
            variables,
            images,
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": key},
        )

    with lenient():
        program, (logits, updates) = jax.make_jaxpr(apply, return_shape=True)(
            variables, images, jax.random.key(0)
        )
        evaluate = functools.partial(model.apply, train=False)
        evaluated = jax.eval_shape(evaluate, variables, images)
    for found in (logits, evaluated):
        assert (found.shape, found.dtype) == ((2, model.classes), jnp.float32)
    chex.assert_trees_all_equal_shapes_and_dtypes(
        updates.get("batch_stats", {}), variables.get("batch_stats", {})
    )
    *body, head = products(program.jaxpr)
    assert {v.aval.dtype for e in body for v in e.invars} == {jnp.dtype(dtype)}
    assert {v.aval.dtype for v in head.invars} == {jnp.dtype(jnp.float32)}


# ---- Forward passes against NumPy, written as the PyTorch code reads -----------------


def shifts(x, size, stride):
    """What each of the size × size places of a window sees as it moves over x."""
    height, width = ((n - size) // stride + 1 for n in x.shape[1:3])
    for i in range(size):
        for j in range(size):
            rows = slice(i, i + stride * height, stride)
            yield (i, j), x[:, rows, j : j + stride * width : stride]


def convolve(x, kernel, stride=1):
    """Padded by half the kernel on all sides."""
    size = len(kernel)
    border = (size // 2, size // 2)
    x = np.pad(x, ((0, 0), border, border, (0, 0)))
    return sum(seen @ kernel[place] for place, seen in shifts(x, size, stride))


def relu(x):
    return np.maximum(x, 0)


def batch_norm(x, norm):
    mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
    return (x - mean) / np.sqrt(variance + 1e-5) * norm["scale"] + norm["bias"]


def max_pool(x):
    """3×3, of stride 2, padded by one."""
    x = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-np.inf)
    return np.max([seen for _, seen in shifts(x, 3, 2)], axis=0)


def basic_resnet(x, conv, norm):
    """The CIFAR stem, then a basic block of 64 channels and one of 128."""
    x = relu(batch_norm(convolve(x, conv[0]), norm[0]))
    y = relu(batch_norm(convolve(x, conv[1]), norm[1]))
    y = batch_norm(convolve(y, conv[2]), norm[2])
    x = relu(x + y)
    y = relu(batch_norm(convolve(x, conv[3], 2), norm[3]))
    y = batch_norm(convolve(y, conv[4]), norm[4])
    return relu(batch_norm(convolve(x, conv[5], 2), norm[5]) + y)


def bottleneck_resnet(x, conv, norm):
    """The ImageNet stem, then a bottleneck of 256 channels and one of 512."""
    x = max_pool(relu(batch_norm(convolve(x, conv[0], 2), norm[0])))
    for first, stride in ((1, 1), (5, 2)):
        y = relu(batch_norm(convolve(x, conv[first]), norm[first]))
        y = relu(batch_norm(convolve(y, conv[first + 1], stride), norm[first + 1]))
        y = batch_norm(convolve(y, conv[first + 2]), norm[first + 2])
        x = batch_norm(convolve(x, conv[first + 3], stride), norm[first + 3])
        x = relu(x + y)
    return x


def wide_resnet(x, conv, norm):
    """WRN-10-1, of which the first block needs no convolution for its shortcut."""
    x = convolve(x, conv[0])
    y = convolve(relu(batch_norm(x, norm[0])), conv[1])
    x = x + convolve(relu(batch_norm(y, norm[1])), conv[2])
    for first, n in ((3, 2), (6, 4)):
        y = relu(batch_norm(x, norm[n]))
        x = convolve(y, conv[first], 2)
        y = convolve(y, conv[first + 1], 2)
        x = x + convolve(relu(batch_norm(y, norm[n + 1])), conv[first + 2])
    return relu(batch_norm(x, norm[6]))


def drawn(shapes, rng):
    """Random parameters of given shapes, in float64."""
    return jax.tree.map(
        lambda leaf: rng.normal(size=leaf.shape) / math.sqrt(leaf.shape[0]), shapes
    )


RESIDUAL = [
    (ResNet(stages=(1, 1)), basic_resnet),
    (ResNet(stages=(1, 1), bottleneck=True, imagenet=True), bottleneck_resnet),
    (WideResNet(depth=10, width=1), wide_resnet),
]


@pytest.mark.parametrize(
    ("model", "features"),
    each(RESIDUAL, RESIDUAL[1:]),
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_residual_networks_compute_what_the_papers_do(model: Any, features):
    rng = np.random.default_rng(0)
    images = rng.normal(size=(4, 16, 16, 3))
    shapes = jax.eval_shape(model.init, jax.random.key(0), images.astype(np.float32))
    params = drawn(shapes["params"], rng)
    statistics = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), shapes["batch_stats"])
    apply = functools.partial(model.apply, train=True, mutable=["batch_stats"])
    logits, updates = jax.jit(apply)(
        jax.tree.map(jnp.float32, {"params": params, "batch_stats": statistics}),
        images.astype(np.float32),
    )
    named = lambda kind: [
        params[f"{kind}_{i}"] for i in range(sum(n.startswith(kind) for n in params))
    ]
    conv = [module["kernel"] for module in named("Conv")]
    x = features(images, conv, named("BatchNorm")).mean((1, 2))
    expected = x @ params["Dense_0"]["kernel"] + params["Dense_0"]["bias"]
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)

    # A tenth of the way from 0 to the first norm's mean: PyTorch's momentum of 0.1.
    stem = convolve(images, conv[0], 2 if features is bottleneck_resnet else 1)
    np.testing.assert_allclose(
        updates["batch_stats"]["BatchNorm_0"]["mean"],
        0.1 * stem.mean((0, 1, 2)),
        rtol=1e-4,
        atol=1e-5,
    )


@pytest.mark.parametrize("name", each(["convnet", "vit-micro"], ["convnet"]))
def test_networks_for_cpus_run_on_digits(name):
    model, rng = build(name), np.random.default_rng(0)
    images = jnp.float32(rng.normal(size=(3, 8, 8, 1)))
    shapes = jax.eval_shape(model.init, jax.random.key(0), images)
    logits = jax.jit(model.apply)(jax.tree.map(jnp.float32, drawn(shapes, rng)), images)
    assert logits.shape == (3, 10)
    assert jnp.isfinite(logits).all()
    assert jnp.ptp(logits, axis=0).min() > 0  # it looks at the images


@pytest.mark.parametrize("size", [(1, 1), (2, 5), (7, 8)])
def test_neighborhoods_times_a_kernel_are_a_convolution_of_stride_2(size):
    keys = jax.random.split(jax.random.key(0))
    x = jax.random.normal(keys[0], (3, *size, 2))
    kernel = jax.random.normal(keys[1], (3, 3, 2, 4))
    expected = jax.lax.conv_general_dilated(
        x, kernel, (2, 2), ((1, 1), (1, 1)), dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    found = neighborhoods(x) @ kernel.reshape(-1, 4)
    chex.assert_trees_all_close(found, expected, rtol=1e-5, atol=1e-5)


def test_dropout_has_a_key_and_none_in_evaluation():
    model: Any = MODELS["vit-micro"](depth=1, dropout=0.5)
    rng = np.random.default_rng(0)
    images = jnp.float32(rng.normal(size=(2, 8, 8, 3)))
    shapes = jax.eval_shape(model.init, jax.random.key(0), images)
    variables = jax.tree.map(jnp.float32, drawn(shapes, rng))
    apply = jax.jit(functools.partial(model.apply, train=True))
    first, again, other = (
        apply(variables, images, rngs={"dropout": jax.random.key(seed, impl="rbg")})
        for seed in (0, 0, 1)
    )
    assert (first == again).all()
    assert (first != other).all()
    jax.eval_shape(functools.partial(model.apply, train=False), variables, images)


def test_what_a_network_cannot_do_is_said():
    images = jnp.zeros((1, 32, 24, 3))
    with pytest.raises(ValueError, match=r"multiples of its patch, 16; got 32×24"):
        MODELS["vit-b16"]().init(jax.random.key(0), images)
    for depth in (4, 18):
        with pytest.raises(ValueError, match=f"6n \\+ 4; got {depth}"):
            WideResNet(depth=depth).init(jax.random.key(0), images)


# ---- Initialization ------------------------------------------------------------------


def initial(model, *modules):
    """The initial parameters of some of a network's modules."""

    def init(key):
        params = model.init(key, jnp.zeros((1, 8, 8, 3)))["params"]
        return [params[name] for name in modules]

    # The default generator takes a CPU several times longer to compile.
    return jax.device_get(jax.jit(init)(jax.random.key(0, impl="rbg")))


def assert_uniform(x, bound):
    """Moments within five of their standard errors."""
    x, n = x / bound, x.size
    assert np.abs(x).max() <= 1 + 1e-6
    assert np.mean(x) == pytest.approx(0, abs=5 * math.sqrt(1 / (3 * n)))
    assert np.mean(x**2) == pytest.approx(1 / 3, abs=5 * math.sqrt(4 / (45 * n)))


def assert_normal(x, deviation):
    """Moments within five of their standard errors, the fourth to see the tails."""
    x, n = x / deviation, x.size
    assert np.mean(x) == pytest.approx(0, abs=5 * math.sqrt(1 / n))
    assert np.mean(x**2) == pytest.approx(1, abs=5 * math.sqrt(2 / n))
    assert np.mean(x**4) == pytest.approx(3, abs=5 * math.sqrt(96 / n))


def test_cifar_resnets_start_as_pytorch_does_by_default():
    model = ResNet(stages=(1,), classes=1000)
    conv, dense, norm = initial(model, "Conv_1", "Dense_0", "BatchNorm_0")
    assert_uniform(conv["kernel"], 1 / math.sqrt(3 * 3 * 64))
    assert_uniform(dense["kernel"], 1 / math.sqrt(64))
    assert_uniform(dense["bias"], 1 / math.sqrt(64))
    assert (norm["scale"] == 1).all()
    assert (norm["bias"] == 0).all()


def test_imagenet_resnets_start_as_torchvisions():
    model = ResNet(stages=(1,), bottleneck=True, imagenet=True, classes=1000)
    conv, dense = initial(model, "Conv_3", "Dense_0")
    assert conv["kernel"].shape == (1, 1, 64, 256)
    assert_normal(conv["kernel"], math.sqrt(2 / 256))
    assert_uniform(dense["kernel"], 1 / math.sqrt(256))
    assert_uniform(dense["bias"], 1 / math.sqrt(256))


def test_wide_resnets_start_as_in_their_code():
    model = WideResNet(depth=10, width=4, classes=100)
    conv, dense = initial(model, "Conv_5", "Dense_0")
    assert conv["kernel"].shape == (3, 3, 64, 128)
    assert_normal(conv["kernel"], math.sqrt(2 / (3 * 3 * 128)))
    assert_uniform(dense["kernel"], 1 / math.sqrt(256))
    assert (dense["bias"] == 0).all()


def test_vision_transformers_start_normal_and_with_their_tails():
    model = MODELS["vit-micro"](depth=1, classes=100)
    names = ("patches", "head", "layer_0", "positions", "class_token")
    patches, head, layer, positions, token = initial(model, *names)
    attention = [layer["attention"][name] for name in ("query", "key", "value", "out")]
    for dense in (patches, head, *attention, layer["mlp_in"], layer["mlp_out"]):
        assert_normal(dense["kernel"], 0.02)
        assert (dense["bias"] == 0).all()
    assert_normal(positions, 0.02)
    assert_normal(token, 0.02)


# ---- Pretrained weights --------------------------------------------------------------

VIT = VisionTransformer(patch=2, width=8, depth=2, heads=2, classes=3)
IMAGE = (6, 6, 3)
LAYER_SHAPES = {
    "layernorm_before": (8,),
    "attention.attention.query": (8, 8),
    "attention.attention.key": (8, 8),
    "attention.attention.value": (8, 8),
    "attention.output.dense": (8, 8),
    "layernorm_after": (8,),
    "intermediate.dense": (32, 8),
    "output.dense": (8, 32),
}
QUERY = "vit.encoder.layer.1.attention.attention.query.weight"
POSITIONS = "vit.embeddings.position_embeddings"


def make_tensors():
    """A file's tensors: random, and of every shape that VIT needs for IMAGE."""
    shapes = {"vit.embeddings.cls_token": (1, 1, 8), POSITIONS: (1, 10, 8)}
    modules = {
        "vit.embeddings.patch_embeddings.projection": (8, 3, 2, 2),
        "vit.layernorm": (8,),
        "classifier": (3, 8),
    }
    for i in range(2):
        for name, shape in LAYER_SHAPES.items():
            modules[f"vit.encoder.layer.{i}.{name}"] = shape
    for name, shape in modules.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    rng = np.random.default_rng(0)
    return {
        name: rng.normal(scale=0.7, size=shape).astype(np.float32)
        for name, shape in shapes.items()
    }


@pytest.fixture
def write(tmp_path):
    """Writes tensors to a file; a change to None removes one."""

    def write(changes=None):
        tensors = {**make_tensors(), **(changes or {})}
        path = tmp_path / "model.safetensors"
        save_file({n: t for n, t in tensors.items() if t is not None}, path)
        return path

    return write


def forward(t, images):
    """The logits of a file's tensors, in NumPy and PyTorch's conventions."""

    def linear(x, name):
        return x @ t[f"{name}.weight"].T + t[f"{name}.bias"]

    def layer_norm(x, name):
        x = x - x.mean(-1, keepdims=True)
        x = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6)
        return x * t[f"{name}.weight"] + t[f"{name}.bias"]

    logits = []
    for image in np.asarray(images, np.float64):
        tokens = [t["vit.embeddings.cls_token"][0, 0]]
        kernel = t["vit.embeddings.patch_embeddings.projection.weight"]
        for row in range(0, 6, 2):
            for column in range(0, 6, 2):
                patch = image[row : row + 2, column : column + 2].transpose(2, 0, 1)
                token = (kernel * patch).sum((1, 2, 3))
                bias = t["vit.embeddings.patch_embeddings.projection.bias"]
                tokens.append(token + bias)
        x = np.array(tokens) + t[POSITIONS][0]
        for i in range(2):
            layer = f"vit.encoder.layer.{i}"
            y = layer_norm(x, f"{layer}.layernorm_before")
            query, key, value = (
                linear(y, f"{layer}.attention.attention.{name}")
                for name in ("query", "key", "value")
            )
            heads = []
            for head in (slice(0, 4), slice(4, 8)):
                weights = np.exp(query[:, head] @ key[:, head].T / math.sqrt(4))
                weights /= weights.sum(-1, keepdims=True)
                heads.append(weights @ value[:, head])
            y = np.concatenate(heads, axis=-1)
            x = x + linear(y, f"{layer}.attention.output.dense")
            y = layer_norm(x, f"{layer}.layernorm_after")
            y = linear(y, f"{layer}.intermediate.dense")
            y = y * (1 + erf(y / math.sqrt(2))) / 2
            x = x + linear(y, f"{layer}.output.dense")
        logits.append(linear(layer_norm(x[0], "vit.layernorm"), "classifier"))
    return np.array(logits)


def test_a_files_weights_compute_what_they_did(write):
    params = load_vit(write(), VIT, IMAGE)
    images = jax.random.normal(jax.random.key(0), (3, *IMAGE))
    fresh = jax.eval_shape(VIT.init, jax.random.key(0), images)["params"]
    chex.assert_trees_all_equal_shapes_and_dtypes(params, fresh)
    logits = jax.jit(functools.partial(VIT.apply, train=False))(
        {"params": params}, images
    )
    expected = forward(make_tensors(), images)
    assert np.std(expected) > 0.5
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5)


def test_other_floating_dtypes_become_float32(write):
    halves = {n: t.astype(ml_dtypes.bfloat16) for n, t in make_tensors().items()}
    params = load_vit(write(halves), VIT, IMAGE)
    class_token = halves["vit.embeddings.cls_token"].astype(np.float32)
    np.testing.assert_array_equal(params["class_token"], class_token)
    chex.assert_trees_all_equal_dtypes(params, load_vit(write(), VIT, IMAGE))


def test_a_head_of_other_classes_is_replaced_by_zeros(write):
    kept = load_vit(write(), VIT, IMAGE)
    params = load_vit(write(), VIT.clone(classes=5), IMAGE)
    zeros = {"kernel": jnp.zeros((8, 5)), "bias": jnp.zeros(5)}
    chex.assert_trees_all_equal(params, {**kept, "head": zeros})


def test_a_backbone_has_bare_names_a_pooler_and_no_head(write, tmp_path):
    kept = load_vit(write(), VIT, IMAGE)
    tensors = {
        name.removeprefix("vit."): tensor
        for name, tensor in make_tensors().items()
        if name.startswith("vit.")
    }
    pooler = {"pooler.dense.weight": np.eye(8), "pooler.dense.bias": np.zeros(8)}
    save_file({**tensors, **pooler}, tmp_path / "backbone.safetensors")
    params = load_vit(tmp_path / "backbone.safetensors", VIT, IMAGE)
    zeros = {"kernel": jnp.zeros((8, 3)), "bias": jnp.zeros(3)}
    chex.assert_trees_all_equal(params, {**kept, "head": zeros})


def keys_weights(size, n):
    """Keys's bicubic kernel (a = -1/2) from n pixels to `size`, at their centres."""
    centres = (np.arange(size) + 0.5) * n / size - 0.5
    x = np.abs(centres[:, None] - np.arange(n))
    near, far = 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    weights = np.where(x < 1, near, np.where(x < 2, far, 0))
    return weights / weights.sum(1, keepdims=True)  # at the border, of what there is


def test_position_embeddings_are_interpolated_to_another_resolution(write):
    kept = load_vit(write(), VIT, IMAGE)
    params = load_vit(write(), VIT, (8, 14, 3))
    place = make_tensors()[POSITIONS][0]
    rows, columns = keys_weights(4, 3), keys_weights(7, 3)
    grid = np.einsum("ij,kl,jlw->ikw", rows, columns, place[1:].reshape(3, 3, 8))
    expected = np.concatenate([place[:1], grid.reshape(28, 8)])[None]
    np.testing.assert_allclose(params["positions"], expected, rtol=1e-5, atol=1e-5)
    chex.assert_trees_all_equal({**params, "positions": kept["positions"]}, kept)
    images = jax.ShapeDtypeStruct((2, 8, 14, 3), jnp.float32)
    assert jax.eval_shape(VIT.apply, {"params": params}, images).shape == (2, 3)


def test_as_many_patches_in_another_shape_are_another_resolution(write):
    kept = load_vit(write(), VIT, IMAGE)["positions"]
    positions = load_vit(write(), VIT, (2, 18, 3))["positions"]
    assert positions.shape == kept.shape
    assert not np.allclose(positions, kept)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({QUERY: None}, [f"has no {QUERY}", "(8, 8)"]),
        ({QUERY: np.zeros((8, 6))}, [QUERY, "shape (8, 6); expected (8, 8)"]),
        ({QUERY: np.zeros((8, 8), np.int8)}, [QUERY, "int8; expected a floating"]),
        ({"vit.layernorm.bias": None}, ["has no vit.layernorm.bias", "(8,)"]),
        ({"classifier.bias": None}, ["has no classifier.bias", "(3,)"]),
        ({QUERY: np.full((8, 8), np.nan)}, [QUERY, "holds NaN or infinite values"]),
        ({QUERY: np.full((8, 8), np.inf)}, [QUERY, "holds NaN or infinite values"]),
        ({QUERY: np.full((8, 8), 1e300)}, [QUERY, "holds NaN or infinite values"]),
        ({POSITIONS: None}, [f"has no {POSITIONS}", "(1, 10, 8)"]),
        ({POSITIONS: np.zeros((1, 9, 8))}, [POSITIONS, "(1, 9, 8)", "(1, 1 + n, 8)"]),
        ({POSITIONS: np.zeros((1, 10, 6))}, [POSITIONS, "(1, 10, 6)"]),
        ({POSITIONS: np.zeros((10, 8))}, [POSITIONS, "(10, 8)"]),
        (
            {"vit.encoder.layer.2.output.dense.bias": np.zeros(8)},
            ["vit.encoder.layer.2.output.dense.bias", "a model of 2 layers"],
        ),
    ],
)
def test_a_file_that_does_not_fit_is_refused(write, changes, said):
    path = write(changes)
    with pytest.raises(ValueError, match=r"model\.safetensors") as caught:
        load_vit(path, VIT, IMAGE)
    for words in (str(path), *said):
        assert words in str(caught.value)


def test_a_file_that_is_not_whole_is_refused(write):
    path = write()
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"model\.safetensors isn't a whole"):
        load_vit(path, VIT, IMAGE)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors"):
        load_vit(path, VIT, IMAGE)
