"""What is searched, and what is refused before anything is."""

from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
import pytest

from examples.search.config import Search
from examples.search.config import shared
from examples.search.space import at
from examples.search.space import make_methods
from examples.search.space import parse
from examples.search.space import points
from examples.trainer.command import Invalid


def test_choices_and_ranges():
    space = parse(
        (
            "k=2,5",
            "alpha=0.2,adaptive",
            "momentum=0.8:0.99",
            "learning-rate=log:1e-3:1",
            "batch_size=log:16:256",
            "nesterov=true,false",
        )
    )
    assert space == {
        "k": CategoricalDistribution([2, 5]),
        "alpha": CategoricalDistribution([0.2, "adaptive"]),
        "momentum": FloatDistribution(0.8, 0.99),
        "learning_rate": FloatDistribution(1e-3, 1.0, log=True),
        "batch_size": IntDistribution(16, 256, log=True),
        "nesterov": CategoricalDistribution([True, False]),
    }


@pytest.mark.parametrize(
    ("text", "share", "value"),
    [
        ("k=2,5,10", 0.0, 2),
        ("k=2,5,10", 0.5, 5),
        ("alpha=0.2,adaptive", 0.99, "adaptive"),
        ("momentum=0.8:0.99", 0.5, 0.895),
        ("rho=log:0.01:1", 0.5, 0.1),
        ("k=2:10", 0.5, 6),
        ("batch-size=log:16:256", 0.25, 32),
    ],
)
def test_the_value_at_a_share(text, share, value):
    ((name, values),) = parse((text,)).items()
    found = at(values, share)
    assert found == (value if isinstance(value, str) else pytest.approx(value))
    assert isinstance(found, type(value)), name


def test_a_grid_has_every_combination():
    space = parse(("k=2,5", "rho=0.1,0.2", "eta=0.01"))
    assert list(points(space)) == [
        {"k": 2, "rho": 0.1, "eta": 0.01},
        {"k": 2, "rho": 0.2, "eta": 0.01},
        {"k": 5, "rho": 0.1, "eta": 0.01},
        {"k": 5, "rho": 0.2, "eta": 0.01},
    ]
    assert list(points({})) == [{}]


def test_each_method_searches_what_it_has():
    search = Search(methods=("base", "sam", "asam", "multistep_sam", "lookbehind_sam"))
    found = {method.name: list(method.space) for method in make_methods(search, [])}
    assert found == {
        "base": ["learning_rate"],
        "sam": ["learning_rate", "rho"],
        "asam": ["learning_rate", "rho"],
        "multistep_sam": ["learning_rate", "rho", "k"],
        "lookbehind_sam": ["learning_rate", "rho", "k", "alpha"],
    }


def test_the_trials_share_recipe_file_and_flags(tmp_path):
    path = tmp_path / "config.json"
    path.write_text('{"epochs": 7, "batch_size": 32}')
    search = Search(methods=("base", "lookbehind_asam"), recipe="cifar", config=path)
    base, asam = make_methods(search, ["--dataset", "cifar100", "--epochs", "9"])
    for method in (base, asam):
        config = method.config
        assert (config.optimizer, config.model) == (method.name, "resnet34")
        assert (config.dataset, config.epochs, config.batch_size) == ("cifar100", 9, 32)
    # The recipe's numbers are each method's.
    assert (base.config.rho, base.config.alpha) == (None, None)
    assert (asam.config.rho, asam.config.alpha) == (1.0, "adaptive")


def test_without_methods_it_is_that_of_the_flags():
    (method,) = make_methods(Search(), ["--optimizer", "sam"])
    assert method.name == method.config.optimizer == "sam"
    phases = ["--phases", "base until 0.5", "sam until 1"]
    (method,) = make_methods(Search(), phases)
    assert (method.name, list(method.space)) == ("base-sam", ["learning_rate", "rho"])


def test_a_tenth_validates_unless_a_share_is_given():
    assert shared(Search(), [], None).validation == 0.1
    assert shared(Search(), ["--validation", "0.3"], None).validation == 0.3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "speed=1:2",
            r"^--space speed=1:2: must name one of .*, learning-rate, ",
        ),
        ("seed=1,2", r"must name one of"),
        ("optimizer=sam,asam", r"must name one of"),
        ("rho", r"^--space rho: must list different values, as in k=2,5$"),
        ("rho=", r"must list different values"),
        ("rho=,", r"must list different values"),
        ("k=2,2", r"must list different values"),
        ("rho=0.5:0.1", r"must be a range that ends above its start$"),
        ("rho=0.1:0.1", r"must be a range that ends above its start$"),
        ("rho=log:0:1", r"must start above 0 on a logarithmic scale$"),
        ("rho=log:-1:1", r"must start above 0 on a logarithmic scale$"),
        ("rho=log:0.1", r"must be a range of two numbers"),
        ("rho=0.1:0.2:0.3", r"must be a range of two numbers"),
        ("rho=lin:0.1:0.2", r"must be a range of two numbers"),
        ("rho=a:b", r"must be a range of two numbers"),
        ("rho=nan:1", r"must be a range of two numbers"),
        ("rho=0:inf", r"must be a range of two numbers"),
        ("k=2.5:5", r"must be a range of whole numbers$"),
        ("rho=0.1,0.2 rho=0.3,0.4", r"^--space rho=0.3,0.4: names rho twice$"),
    ],
)
def test_a_space_that_it_refuses(text, message):
    with pytest.raises(Invalid, match=message) as caught:
        parse(tuple(text.split()))
    assert "\n" not in str(caught.value)


def test_it_refuses_no_space():
    with pytest.raises(Invalid, match=r"^--space must name a parameter"):
        parse(())


def test_all_that_is_wrong_has_a_line():
    with pytest.raises(Invalid) as caught:
        parse(("speed=1:2", "rho=2:1", "k=2,5"))
    assert [line.partition(":")[0] for line in str(caught.value).splitlines()] == [
        "--space speed=1",
        "--space rho=2",
    ]


@pytest.mark.parametrize(
    ("settings", "others", "message"),
    [
        ({"methods": ("sgd",)}, [], r"^--methods must be different ones of base, sam"),
        (
            {"methods": ("sam", "sam")},
            [],
            r"^--methods must be different .* got sam, s",
        ),
        (
            {"methods": ("base", "sam"), "space": ("gamma=0.5,0.9",)},
            [],
            r"^--space gamma doesn't apply to base, sam$",
        ),
        (
            {"space": ("rho=-1:1",)},
            [],
            r"^--rho must be greater than or equal to 0; go",
        ),
        ({"space": ("alpha=0.2,half",)}, [], r"^--alpha must .*; got half$"),
        ({"space": ("epochs=0,2",)}, [], r"^--epochs must be greater than 0; got 0$"),
        (
            {"space": ("base=sgd,nothing",)},
            [],
            r"^--base must name an optimizer of Opt",
        ),
        (
            {"space": ("base=0.1:0.2",)},
            [],
            r"^--space base=0.1:0.2: must list choices",
        ),
        (
            {"space": ("rho=0.1:0.2", "k=1:2"), "sampler": "grid"},
            [],
            r"^--sampler grid needs choices, as in k=2,5; --space rho is.*\n.* k is",
        ),
        ({}, ["--validation", "0"], r"^--validation must be greater than 0: it scores"),
        ({}, ["--output", "runs/x"], r"^--output can't follow `--`"),
        (
            {"methods": ("sam",)},
            ["--optimizer=asam"],
            r"^--optimizer can't follow `--`",
        ),
        ({}, ["--distributed"], r"^--distributed is for single runs"),
        ({}, ["--epochs", "0"], r"^--epochs must be greater than 0; got 0$"),
        (
            {"recipe": "late", "methods": ("sam",)},
            [],
            r"^--phases take the place of --o",
        ),
    ],
)
def test_a_search_that_it_refuses(settings, others, message):
    with pytest.raises((ValueError, Invalid), match=message):
        make_methods(Search(**settings), others)
