"""Where settings come from: flags, a file, a recipe, and the recipe's source."""

from dataclasses import replace
import json

import pytest

from examples.images.config import Config
from examples.images.config import RECIPES
from examples.trainer import command
from examples.trainer import config as configuration
from examples.translation.config import TRANSLATION_RECIPES
from examples.translation.config import TranslationConfig


def parse(*arguments):
    return configuration.parse(Config, RECIPES, "examples.images", list(arguments))


def parse_translation(*arguments):
    return configuration.parse(
        TranslationConfig, TRANSLATION_RECIPES, "examples.translation", list(arguments)
    )


def test_flags_override_the_file_and_the_file_the_recipe(tmp_path):
    config = parse("--recipe", "cifar", "--k", "5")
    assert (config.model, config.weight_decay, config.k) == ("resnet34", 1e-4, 5)
    path = tmp_path / "config.json"
    command.save(config, path)
    again = parse("--config", str(path), "--alpha", "0.5")
    assert again == replace(config, alpha=0.5, config=path)


def test_every_recipe_is_a_configuration():
    for recipe in RECIPES:
        assert parse("--recipe", recipe).recipe == recipe


@pytest.mark.parametrize(
    ("recipe", "dataset", "optimizer", "rho"),
    [
        ("cifar", "cifar10", "sam", 0.05),
        ("cifar", "cifar10", "lookbehind_sam", 0.05),
        ("cifar", "cifar10", "lookbehind_asam", 0.5),
        ("cifar", "cifar100", "gsam", 0.1),
        ("cifar", "cifar100", "lookbehind_asam", 1.0),
        ("imagenet", "imagenet2012", "multistep_sam", 0.05),
        ("imagenet", "imagenet2012", "multistep_asam", 1.0),
        ("table-8", "cifar100", "lookbehind_sam", 0.1),
        ("table-8", "cifar100", "lookbehind_asam", 1.0),
        ("asam", "cifar10", "asam", 0.5),
        # It isn't in the paper, or it has no radius: the optimizer's own default.
        ("cifar", "fashion_mnist", "sam", None),
        ("cifar", "cifar100", "base", None),
        ("digits", "cifar100", "sam", None),
    ],
)
def test_the_radius_follows_dataset_and_optimizer(recipe, dataset, optimizer, rho):
    config = Config(recipe=recipe, dataset=dataset, optimizer=optimizer)
    assert config.of_recipe().get("rho") == rho


def test_a_flag_overrides_the_radius():
    flags = ["--recipe", "cifar", "--dataset", "cifar100"]
    flags += ["--optimizer", "lookbehind_asam"]
    assert parse(*flags).rho == 1.0
    assert parse(*flags, "--rho", "0.3").rho == 0.3


def test_phases_have_the_radius_that_they_have_in_common():
    late = parse("--recipe", "late")
    assert late.phases == ("base until 0.7", "sam until 1")
    assert late.anneal == "each"
    assert late.rho == 0.05
    both = replace(late, phases=("sam until 0.5", "lookbehind_asam until 1"))
    assert both.of_recipe()["rho"] is None


def test_the_adaptive_alpha_is_for_lookbehind():
    table = parse("--recipe", "table-8")
    assert table.alpha == "adaptive"
    for optimizer in ("base", "sam", "multistep_sam", "gsam"):
        assert "alpha" not in replace(table, optimizer=optimizer).of_recipe()
    assert parse("--recipe", "cifar", "--alpha", "None").alpha is None


def test_a_translation_recipe_follows_the_optimizer():
    paper = parse_translation("--recipe", "paper")
    assert (paper.alpha, paper.reuse_gradients) == ("adaptive", False)
    sam = parse_translation("--recipe", "paper", "--optimizer", "sam")
    assert (sam.alpha, sam.reuse_gradients) == (None, True)


def test_the_file_holds_the_numbers_that_are_used(tmp_path):
    path = tmp_path / "config.json"
    config = parse("--recipe", "cifar", "--dataset", "cifar100", "--alpha", "None")
    command.save(config, path)
    saved = json.loads(path.read_text())
    assert (saved["rho"], saved["alpha"]) == (0.1, None)
    # Those of the file stay, whatever the recipe would say.
    again = parse("--config", str(path), "--dataset", "cifar10")
    assert (again.rho, again.alpha) == (0.1, None)


def help_of(parse, capsys, *arguments):
    with pytest.raises(SystemExit, match="0"):
        parse(*arguments, "--help")
    # Without frames and line breaks.
    return " ".join(capsys.readouterr().out.replace("│", " ").split())


def test_help_shows_the_defaults_of_the_recipe_in_groups(capsys):
    shown = help_of(parse, capsys, "--recipe", "cifar", "--dataset", "cifar100")
    assert "--epochs INT passes over the training examples. (default: 200)" in shown
    assert "if not given. (default: 0.1)" in shown  # ρ
    assert "if not given. (default: adaptive)" in shown
    groups = ("images", "training", "base", "optimizer", "devices", "files")
    places = [shown.index(f"{group} options") for group in groups]
    assert places == sorted(places)
    asam = help_of(parse, capsys, "--recipe", "cifar", "--optimizer", "asam")
    assert "if not given. (default: 0.5)" in asam


@pytest.mark.parametrize(
    ("parse", "program"),
    [(parse, "examples.images"), (parse_translation, "examples.translation")],
)
def test_help_has_two_commands(parse, program, capsys):
    shown = help_of(parse, capsys)
    assert f"Two commands: python -m {program} --" in shown
    assert shown.count(f"python -m {program} --") == 2


def test_a_file_may_name_the_recipe(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"recipe": "cifar", "epochs": 3}))
    found = parse("--config", str(path))
    assert (found.model, found.epochs, found.drop_every) == ("resnet34", 3, 50)
    found = parse("--config", str(path), "--recipe", "table-8")
    assert (found.model, found.epochs, found.recipe) == ("wrn-28-10", 3, "table-8")
