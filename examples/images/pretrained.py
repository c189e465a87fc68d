"""Pretrained weights for `VisionTransformer`, from a safetensors file.

The tensors' names are those of Hugging Face's ViT. With `model.safetensors` of
`google/vit-base-patch16-224`, to fine-tune on ten classes at a resolution of 384:

    model = VisionTransformer(classes=10)
    params = load_vit("model.safetensors", model, (384, 384, 3))
    logits = model.apply({"params": params}, images, train=True)

These weights saw images normalized by a mean and a standard deviation of 0.5, that is,
from -1 to 1.
"""

import functools
import math
import os
from typing import Any

from flax import traverse_util
import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from examples.images.models import VisionTransformer

# Our modules and parameters, and theirs: of the network, and of each layer.
NETWORK = {
    "class_token": "embeddings.cls_token",
    "positions": "embeddings.position_embeddings",
    "patches": "embeddings.patch_embeddings.projection",
    "norm": "layernorm",
}
LAYER = {
    "norm_attention": "layernorm_before",
    "attention/query": "attention.attention.query",
    "attention/key": "attention.attention.key",
    "attention/value": "attention.attention.value",
    "attention/out": "attention.output.dense",
    "norm_mlp": "layernorm_after",
    "mlp_in": "intermediate.dense",
    "mlp_out": "output.dense",
}
HEAD = {"kernel": "classifier.weight", "bias": "classifier.bias"}
SUFFIX = {"kernel": ".weight", "scale": ".weight", "bias": ".bias"}
POOLER = ("pooler.dense.weight", "pooler.dense.bias")  # no classifier uses it


def load_vit(
    path: str | os.PathLike[str], model: VisionTransformer, image: tuple[int, int, int]
) -> dict[str, Any]:
    """Parameters of `model` for images of shape `image`, with the weights of a file.

    If the file's number of classes differs from the model's, or the file has no head
    (such as that of `google/vit-base-patch16-224-in21k`), the head is zero, as at the
    start of the ViT paper's fine-tuning. Otherwise the file's own head is used.

    If the file has another resolution, its position embeddings are interpolated between
    patches: bicubically, since linear interpolation shortens the vectors in between,
    and the layers above never saw short ones (Touvron et al. 2021, DeiT).

    Args:
      path: the file, with tensors of any floating dtype; they become float32.
      model: its patch, width and depth must be the file's, which is checked. So must
        its number of heads, which can't be checked.
      image: height, width and channels of one image.

    Returns:
      The `params` of `model.apply({"params": params}, images)`.

    Raises:
      FileNotFoundError: if there is no file.
      ValueError: if the file isn't a whole safetensors file, or if a tensor of it is
        missing, isn't as the model needs it, isn't finite, or has no place in the
        model.
    """
    tensors = _read(path)
    # Names begin with "vit." in a classifier, but not in a backbone saved alone.
    prefix = "vit." if any(name.startswith("vit.") for name in tensors) else ""
    for name in POOLER:
        tensors.pop(prefix + name, None)
    images = jax.ShapeDtypeStruct((1, *image), jnp.float32)
    init = functools.partial(model.init, train=False)
    variables: Any = jax.eval_shape(init, jax.random.key(0), images)
    needed: dict[str, Any] = traverse_util.flatten_dict(variables["params"], sep="/")

    params = {}
    head = [tensors[name] for name in HEAD.values() if name in tensors]
    if all(tensor.shape[:1] != (model.classes,) for tensor in head):
        for leaf, name in HEAD.items():
            params[f"head/{leaf}"] = jnp.zeros(needed.pop(f"head/{leaf}").shape)
            tensors.pop(name, None)
    for place, leaf in needed.items():
        name, shape = _name(place, prefix), _shape(place, leaf.shape)
        if name not in tensors:
            raise ValueError(f"{path} has no {name}; expected one of shape {shape}")
        tensor = _floats(tensors.pop(name), f"{name} in {path}")
        if place == "positions":
            grid = (image[0] // model.patch, image[1] // model.patch)
            tensor = _positions(tensor, grid, model.width, f"{name} in {path}")
        elif tensor.shape != shape:
            raise ValueError(
                f"{name} in {path} has shape {tensor.shape}; expected {shape}"
            )
        if place == "patches/kernel":
            tensor = tensor.transpose(2, 3, 1, 0)
        elif place.endswith("/kernel"):
            tensor = tensor.T
        params[place] = jnp.asarray(tensor.reshape(leaf.shape))
    if tensors:
        raise ValueError(
            f"{path} has {min(tensors)}, for which a model of {model.depth} layers has "
            "no place"
        )
    return traverse_util.unflatten_dict(params, sep="/")


def _read(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The tensors of a file."""
    if not os.path.isfile(path):
        raise FileNotFoundError(f"there is no file {path}")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} isn't a whole safetensors file: {error}") from error


def _floats(tensor: np.ndarray, what: str) -> np.ndarray:
    """A tensor as float32, if it holds finite numbers."""
    if not jnp.issubdtype(tensor.dtype, jnp.floating):
        raise ValueError(f"{what} is {tensor.dtype}; expected a floating dtype")
    with np.errstate(over="ignore"):  # which gives infinity
        tensor = tensor.astype(np.float32)
    if not np.isfinite(tensor).all():
        raise ValueError(f"{what} holds NaN or infinite values")
    return tensor


def _name(place: str, prefix: str) -> str:
    """The file's name for one of our parameters."""
    module, _, leaf = place.rpartition("/")
    if not module:
        return prefix + NETWORK[leaf]
    if module == "head":
        return HEAD[leaf]
    if module in NETWORK:
        return prefix + NETWORK[module] + SUFFIX[leaf]
    layer, _, module = module.partition("/")
    number = layer.removeprefix("layer_")
    return f"{prefix}encoder.layer.{number}.{LAYER[module]}{SUFFIX[leaf]}"


def _shape(place: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The file's shape for one of our parameters, from our shape.

    PyTorch puts the outputs first, and doesn't split the attention's by head.
    """
    if place == "patches/kernel":
        height, width, inputs, outputs = shape
        return (outputs, inputs, height, width)
    if place.endswith("attention/out/kernel"):
        return (shape[-1], math.prod(shape[:-1]))
    if place.endswith("/kernel"):
        return (math.prod(shape[1:]), shape[0])
    return (math.prod(shape),) if "/" in place else shape


def _positions(
    tensor: np.ndarray, grid: tuple[int, int], width: int, name: str
) -> np.ndarray:
    """Position embeddings of a class token and a grid of patches, from a square one."""
    side = math.isqrt(max(tensor.shape[1] - 1, 0)) if tensor.ndim == 3 else 0
    if side == 0 or tensor.shape != (1, 1 + side**2, width):
        raise ValueError(
            f"{name} has shape {tensor.shape}; expected (1, 1 + n, {width}), where n "
            "patches fill a square"
        )
    if grid == (side, side):
        return tensor
    patches = tensor[0, 1:].reshape(side, side, width)
    patches = jax.image.resize(patches, (*grid, width), "bicubic")
    return np.concatenate([tensor[:, :1], patches.reshape(1, -1, width)], axis=1)
