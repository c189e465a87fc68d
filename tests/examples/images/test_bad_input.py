"""What the trainer says of datasets, networks and weights that it can't use."""

import contextlib
import functools
import io
import pickle
import re
import shutil

import datasets
import jax
import numpy as np
from PIL import Image
import pytest
from safetensors.numpy import save_file

from examples.images import huggingface
from examples.images.__main__ import main
from examples.images.models import MODELS
from examples.images.models import VisionTransformer
from tests.examples.images.files import ARRAYS
from tests.examples.images.files import encoded
from tests.examples.images.files import NETWORKS
from tests.examples.images.files import photo
from tests.examples.images.files import write_arrays
from tests.examples.images.files import write_folder
from tests.examples.images.files import write_table
from tests.examples.images.test_models import make_tensors
from tests.library.members import each


@pytest.fixture(autouse=True)
def own(tmp_path, monkeypatch):
    """A working directory with networks, and datasets to be damaged."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_networks.py").write_text(NETWORKS)
    (tmp_path / "no_python.py").write_text("def")
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield


def refusal(*flags):
    """What the program says before it leaves."""
    printed = io.StringIO()
    with pytest.raises(SystemExit) as left, contextlib.redirect_stderr(printed):
        main([*flags, "--epochs", "1", "--optimizer", "base", "--output", "run"])
    code = left.value.code
    said = code if isinstance(code, str) else printed.getvalue().removesuffix("\n")
    assert said.startswith("Error: ")
    assert "\n" not in said
    return said.removeprefix("Error: ")


# ---- A folder ------------------------------------------------------------------------


def without_classes(folder):
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            for path in (folder / split / name).iterdir():
                path.unlink()
            (folder / split / name).rmdir()


def damage(folder):
    for path in folder.rglob("*.png"):
        path.write_bytes(path.read_bytes()[:60])


def sixteen_bits(folder):
    for path in folder.rglob("*.png"):
        Image.fromarray(np.zeros((9, 9), np.uint16)).save(path)


FOLDERS = [
    (lambda f: f.rename("other"), "^there is no folder photos$"),
    (
        lambda f: (f / "train").rename(f / "x"),
        "must hold .* train and test .* test, x$",
    ),
    (
        lambda f: (f / "test").rename(f / "x"),
        "must hold .* train and test .* train, x$",
    ),
    (without_classes, "^photos/train must hold .* two classes .* it holds nothing$"),
    (
        lambda f: [(f / s / "dog").rename(f / s / ".dog") for s in ("train", "test")],
        "^photos/train must hold .* two classes .* it holds cat$",
    ),
    (lambda f: (f / "test/dog").rename(f / "test/pig"), "same classes; .* dog, pig$"),
    (lambda f: (f / "test/pig").mkdir(), "same classes; only one of them holds pig$"),
    (
        lambda f: [p.rename(p.with_suffix(".gif")) for p in f.glob("train/cat/*.png")],
        "^photos/train/cat must hold JPEGs or PNGs; it has none$",
    ),
    (
        lambda f: [p.unlink() for p in f.glob("test/*/*.png")],
        "^photos/test/cat must hold JPEGs or PNGs; it has none$",
    ),
    (damage, r"^photos/train/(cat|dog)/000\d.png can't be decoded \(OSError: "),
    (sixteen_bits, r"^photos/train/(cat|dog)/000\d.png can't be decoded .*8 bits"),
]


@pytest.mark.parametrize(("spoil", "message"), each(FOLDERS, FOLDERS[1::2]))
def test_folders(spoil, message, tmp_path):
    spoil(write_folder(tmp_path / "photos").relative_to(tmp_path))
    flags = ["--dataset", "folder:photos", "--batch-size", "2", "--image-size", "8"]
    assert re.search(message, refusal(*flags))


# ---- Arrays --------------------------------------------------------------------------


def change(**changes):
    return lambda path: write_arrays(path, **changes)


def spoil(**values):
    """Labels of which the first is another."""
    return change(**{k: np.array([v, *ARRAYS[k][1:]]) for k, v in values.items()})


def cut(path):
    path.write_bytes(write_arrays(path).read_bytes()[:-300])


def flip(path):
    content = bytearray(write_arrays(path).read_bytes())
    content[200] ^= 1
    path.write_bytes(content)


def pickled(path):
    path.write_bytes(pickle.dumps(ARRAYS))


def one_array(path):
    with path.open("wb") as file:
        np.save(file, ARRAYS["x_train"])


X, Y = ARRAYS["x_train"], ARRAYS["y_train"]
FILES = [
    (lambda path: None, "^there is no file a.npz$"),
    (lambda path: path.mkdir(), "^there is no file a.npz$"),
    (cut, "^a.npz can't be read as an npz file of plain arrays"),
    (flip, "^a.npz can't be read as an npz file of plain arrays"),
    (pickled, "^a.npz can't be read as an npz file of plain arrays"),
    (one_array, "^a.npz can't be read as an npz file of plain arrays"),
    (lambda path: path.touch(), "^a.npz can't be read as an npz file of plain arrays"),
    (change(x_train=X.astype(object)), "^a.npz can't be read .*Object arrays"),
    (change(y_test=None), "must hold x_train, .*; it holds x_test, x_train, y_train$"),
    (change(x_train=X.astype(float)), "^a.npz: x_train must be uint8.* got float64$"),
    (change(x_test=np.float32(X[:3]) * np.nan), "x_test must be uint8.* got float32$"),
    (change(x_train=X[0]), r"x_train must have the shape .* got \(8, 8\)$"),
    (change(x_train=X[:, :0]), r"x_train must have the shape .* got \(6, 0, 8\)$"),
    (change(x_test=X[:3, :4]), r"one shape; got \(8, 8, 1\) and \(4, 8, 1\)$"),
    (change(y_train=Y[:5]), r"y_train .* each image, of shape \(6,\); got \(5,\)$"),
    (change(y_train=Y[:, None]), r"of shape \(6,\); got \(6, 1\)$"),
    (change(y_train=Y.astype(float)), "y_train must be integers; got float64$"),
    (change(y_train=Y * np.nan), "y_train must be integers; got float64$"),
    (change(y_train=Y > 0), "y_train must be integers; got bool$"),
    (change(y_test=np.array(["a", "b", "c"])), "y_test must be integers; got <U1$"),
    (spoil(y_train=-1), "y_train must hold labels from 0 .*; got -1$"),
    (spoil(y_train=2**40), f"y_train must hold labels from 0 .*; got {2**40}$"),
    (spoil(y_train=10**6), "all labels from 0 to 1000000; 3 is absent$"),
    (spoil(y_test=3), "^a.npz: y_test must hold labels from 0 to 2; got 3$"),
    (change(y_train=Y + 1), "all labels from 0 to 3; 0 is absent$"),
    (change(y_train=Y * 0), "y_train must hold two classes or more; got one$"),
    (change(x_train=X[:0], y_train=Y[:0]), "y_train must hold an example or more"),
    (change(x_test=X[:0], y_test=Y[:0]), "y_test must hold an example or more"),
    (change(x_train=X * 0), "training images of a.npz must differ in all channels"),
]


@pytest.mark.parametrize(("write", "message"), each(FILES, FILES[::4]))
def test_arrays(write, message, tmp_path):
    write(tmp_path / "a.npz")
    assert re.search(message, refusal("--dataset", "a.npz"))


# ---- Hugging Face --------------------------------------------------------------------


def change_table(**columns):
    """A dataset of other columns."""

    def write(path):
        table = datasets.Dataset.from_dict({k: v for k, (v, _) in columns.items()})
        features = datasets.Features({k: kind for k, (_, kind) in columns.items()})
        table = table.cast(features)
        both = datasets.DatasetDict({"train": table, "test": table})
        both.save_to_disk(str(path))

    return write


def cut_table(path):
    (arrow,) = (write_table(path) / "train").glob("*.arrow")
    arrow.write_bytes(arrow.read_bytes()[:-200])


def without_splits(path):
    write_table(path / "x")
    (path / "x/train").rename(path.parent / "moved")
    shutil.rmtree(path)
    (path.parent / "moved").rename(path)


IMAGE = [{"bytes": encoded(photo(i)), "path": None} for i in range(2)]
IMAGES, LABELS = datasets.Image(), datasets.ClassLabel(names=["cat", "dog"])
TABLES = [
    (lambda path: None, "^there is no folder table$"),
    (lambda path: path.mkdir(), "^table can't be read as a dataset of Hugging Face"),
    (cut_table, "^table can't be read as a dataset of Hugging Face"),
    (without_splits, "^table must be a DatasetDict, of train and test; got a Dataset$"),
    (lambda path: write_table(path, train=[0, 1]), "must have .*; it has train$"),
    (lambda path: write_table(path, test=[0, 1]), "must have .*; it has test$"),
    (
        change_table(picture=(IMAGE, IMAGES), kind=([0, 1], datasets.Value("int64"))),
        "one column of ClassLabels; it has nothing among picture, kind$",
    ),
    (
        change_table(
            text=(["a", "b"], datasets.Value("string")), label=([0, 1], LABELS)
        ),
        "one column of Images; it has nothing among text, label$",
    ),
    (
        change_table(x=(IMAGE, IMAGES), fine=([0, 1], LABELS), coarse=([0, 1], LABELS)),
        "one column of ClassLabels; it has fine, coarse among x, fine, coarse$",
    ),
    (
        change_table(x=(IMAGE, IMAGES), y=([0, 0], datasets.ClassLabel(names=["cat"]))),
        "^table: y must have two classes or more; got 1$",
    ),
    (
        lambda path: write_table(path, train=[], test=[0]),
        "none of whose splits is empty",
    ),
    (
        lambda path: write_table(path, train=[0, 1], test=[]),
        "none of whose splits is empty",
    ),
    (
        lambda path: write_table(path, train=[0, -1], test=[0]),
        "^table: label of train must hold labels from 0 to 1; got -1$",
    ),
    (
        lambda path: write_table(path, train=[0, None], test=[0]),
        "^table: label of train must hold labels from 0 to 1; got -1$",
    ),
    (
        change_table(x=([None] * 2, IMAGES), y=([0, 1], LABELS)),
        "^image [01] of table train is absent$",
    ),
    (
        change_table(
            x=([{"bytes": b"no image", "path": None}] * 2, IMAGES), y=([0, 1], LABELS)
        ),
        "^image [01] of table train can't be decoded",
    ),
]


@pytest.mark.parametrize(("write", "message"), each(TABLES, TABLES[::4]))
def test_tables(write, message, tmp_path):
    write(tmp_path / "table")
    flags = ["--dataset", "hf:table", "--batch-size", "2", "--image-size", "8"]
    assert re.search(message, refusal(*flags))


def test_datasets_is_not_installed(monkeypatch):
    monkeypatch.setattr(huggingface.importlib.util, "find_spec", lambda _: None)
    assert refusal("--dataset", "hf:table").endswith("pip install datasets")


# ---- Networks ------------------------------------------------------------------------


OWN = [
    ("resnet", "^--model must be one of .*package.module:Factory; got resnet$"),
    (":Net", "^--model must be one of .*; got :Net$"),
    ("own_networks:", "^--model must be one of .*; got own_networks:$"),
    ("nowhere:Net", r"can't be imported \(ModuleNotFoundError: .*'nowhere'\)$"),
    ("nowhere.deep:Net", "can't be imported .ModuleNotFoundError: .*'nowhere'"),
    ("no_python:Net", r"can't be imported \(SyntaxError: invalid syntax"),
    ("own_networks:Net", "own_networks has no Net$"),
    ("own_networks:narrow", "can't be called with classes=10 .*'dtype'"),
    ("own_networks:three", "can't be called with .*'int' object is not callable"),
    ("own_networks:no_module", "must give a flax.linen.Module; got type$"),
    ("own_networks:Trainless", "can't take images .* and train .*'train'"),
    ("own_networks:Broken", r"can't take .* \(RuntimeError: first line\)$"),
    ("own_networks:Wide", r"logits float32\[2, 10\] .*; got float32\[2, 11\]$"),
    ("own_networks:Pixelwise", r"two images; got float32\[2, 8, 8, 10\]$"),
    ("own_networks:Pair", "two images; got tuple$"),
    ("own_networks:Integers", r"two images; got int32\[2, 10\]$"),
    ("own_networks:Counting", "no variables but .*; got counts$"),
    ("own_networks:Empty", "must have parameters; got none$"),
]
# For `make test`.
ONE_OF_EACH = {
    *(":Net", "nowhere:Net", "own_networks:Net", "own_networks:narrow"),
    *("own_networks:no_module", "own_networks:Broken", "own_networks:Wide"),
    *("own_networks:Pair", "own_networks:Counting", "own_networks:Empty"),
}


@pytest.mark.parametrize(
    ("name", "message"), each(OWN, [case for case in OWN if case[0] in ONE_OF_EACH])
)
def test_own_networks(name, message):
    said = refusal("--model", name)
    assert said.startswith("--model")
    assert re.search(message, said)


# ---- Pretrained weights --------------------------------------------------------------


def save(**changes):
    def write(path):
        tensors = {k.removeprefix("vit."): v for k, v in make_tensors().items()}
        save_file(tensors | changes, path)

    return write


def truncate(path):
    save()(path)
    path.write_bytes(path.read_bytes()[:-100])


SCALE = "layernorm.weight"
WEIGHTS = [
    (lambda path: None, "^--pretrained must be a file that exists; got w.safet"),
    (lambda path: path.mkdir(), "^--pretrained must be a file, not a folder; got w."),
    (lambda path: path.touch(), "^w.safetensors isn't a whole safetensors file"),
    (lambda path: path.write_text("{}"), "^w.safetensors isn't a whole safetensors"),
    (truncate, "^w.safetensors isn't a whole safetensors file"),
    (save(more=np.zeros(2)), "^w.safetensors has more, for which a model of 2 layers"),
    (save(**{SCALE: np.zeros(3)}), r"shape \(3,\); expected \(8,\)$"),
    (save(**{SCALE: np.zeros(8, int)}), "is int64; expected a floating dtype$"),
    (save(**{SCALE: np.full(8, np.nan)}), "holds NaN or infinite values$"),
    (save(**{SCALE: np.full(8, -np.inf)}), "holds NaN or infinite values$"),
]


@pytest.mark.parametrize(("write", "message"), each(WEIGHTS, WEIGHTS[::3]))
def test_weights(write, message, tmp_path, monkeypatch):
    vit = functools.partial(VisionTransformer, patch=2, width=8, depth=2, heads=2)
    monkeypatch.setitem(MODELS, "vit", vit)
    write(tmp_path / "w.safetensors")
    said = refusal("--model", "vit", "--pretrained", "w.safetensors")
    assert re.search(message, said)


# ---- Shares --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "flag", each(["--label-noise", "--validation"], ["--validation"])
)
@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("-0.1", "must be greater than or equal to 0; got -0.1$"),
        ("1", "must be less than 1; got 1.0$"),
        ("nan", "must be a finite number; got nan$"),
        (
            "1e-9",
            "must cover some of the 1297 training images, not none; got 1e-09$",
        ),
        ("0.9999", "must cover some of the 1297 .* not all; got 0.9999$"),
    ],
)
def test_shares(flag, value, message):
    assert re.search(f"^{flag} {message}", refusal(f"{flag}={value}"))
