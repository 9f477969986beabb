from pathlib import Path

import pytest

from medserve_training.errors import UserError
from medserve_training.recipes.recipe import SurvivalTask, load_recipe, recipe_names


def test_every_packaged_recipe_loads_under_its_own_name() -> None:
    assert {"alexnet", "article-risk", "chest-xray", "chest-xray-article", "lenet-5", "resnet", "vgg"} <= set(
        recipe_names()
    )
    for name in recipe_names():
        assert load_recipe(name).name == name


def test_overrides_address_nested_keys_and_quotes_may_be_omitted() -> None:
    recipe = load_recipe("digits", ["training.epochs=3", "training.patience=2", "manifest.license=MIT"])
    assert (recipe.training.epochs, recipe.training.patience, recipe.manifest.license) == (3, 2, "MIT")


def test_other_data_is_described_by_its_own_spec() -> None:
    recipe = load_recipe("chest-xray", data="medmnist:breastmnist")
    assert recipe.data.spec == recipe.data.description == "medmnist:breastmnist"


def test_curve_times_are_half_years_from_zero() -> None:
    task = load_recipe("breast-cancer-risk").task
    assert isinstance(task, SurvivalTask)
    assert task.curve_times[:3] == (0, 182.625, 365.25)
    assert len(task.curve_times) == 13


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("trainin.epochs=3", "trainin: no such key"),  # codespell:ignore trainin
        ("training.epoch=3", "training.epoch: no such key"),
        ("training.epochs='three'", "training.epochs: was 'three'"),
        ("training.epochs=0", "training.epochs: was 0"),
        ("split.test=1.5", "split.test: was 1.5"),
        ("name=Upper Case", "name: was 'Upper Case'"),
        ("training.loss=cross-entropy", "supports network.name 'baseline-risk-cnn' or 'projection-risk-cnn'"),
        ("network.name=cnn", "network: Input tag 'cnn'"),
        ("network.dropuot=0.5", "dropuot: no such key"),
        ("training.optimizer=sgd", "weight_decay requires optimizer 'adamw'"),
        ("training.label_smoothing=0.1", "require classes"),
        ("augmentation.rotation=5.0", "augmentation requires images"),
        ("task.reference_horizon='9 years'", "reference_horizon '9 years'"),
        ("task.interval=100", "not a multiple of the interval 100"),
        ("seed", "expected key=value"),
        ("seed.first=1", "'seed' is not a table"),
    ],
)
def test_an_invalid_key_is_reported(override: str, named: str) -> None:
    with pytest.raises(UserError) as error:
        load_recipe("breast-cancer-risk", [override])
    assert named in str(error.value)


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (["task.labels=['nucleus', 'nucleus']"], "labels are ['nucleus', 'nucleus']; expected different ones"),
        (["task.fixed={ height = 64, width = 64, resampling = 'bilinear' }"], "one of the tables task.fixed and task"),
        (["task.tiling.max_side=500"], "task.tiling.max_side is 500, expected a multiple of 8, as network.widths"),
        (["task.tiling.margin=170"], "task.tiling.max_side is 512, expected 518 or more for a margin of 170"),
        (["crops.width=100"], "crops.width is 100, expected a multiple of 8, as network.widths determines"),
        (["task.objects=connected"], "segmentation_loss.distance is 1 with task.objects 'connected'"),
        (["segmentation_loss.distance=0.0"], "segmentation_loss.distance is 0 with task.objects 'touching'"),
        (["segmentation_loss.dice=-1.0"], "segmentation_loss.dice: was -1.0"),
        (["crops.scale=0.5"], "crops.scale: was 0.5"),
        (["training.loss=cross-entropy"], "supports network.name 'u-net' and training.loss 'segmentation'"),
        (["training.balance=sampling"], "balance and label_smoothing are not supported"),
        (["augmentation.rotation=5.0"], "augmentation requires images to classify; remove it for the task"),
        (["split.test_groups=[]"], "expected both or neither of validation_groups and test_groups"),
        (
            ["split.test_groups=['a', 'b']", "split.validation_groups=['b']"],
            "the group 'b' is in validation_groups and in test_groups",
        ),
    ],
)
def test_an_invalid_key_of_segmentation_is_reported(overrides: list[str], named: str) -> None:
    with pytest.raises(UserError) as error:
        load_recipe("cell-nuclei", overrides)
    assert named in str(error.value)


def test_settings_of_segmentation_are_rejected_for_other_tasks() -> None:
    for override in ("split.by=image", "crops={ height = 8, width = 8, per_epoch = 1 }"):
        with pytest.raises(UserError, match="are settings of the task 'image-segmentation', not of 'survival'"):
            load_recipe("breast-cancer-risk", [override])


def test_a_recipe_may_be_a_path(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("name = [", encoding="utf-8")
    with pytest.raises(UserError, match=r"mine\.toml is not a TOML file"):
        load_recipe(str(path))


def test_an_unknown_recipe_lists_the_available_ones() -> None:
    with pytest.raises(UserError, match="neither a file nor one of the packaged recipes: alexnet, article-risk"):
        load_recipe("chest")
