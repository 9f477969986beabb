"""Where a model and its figures come from: the recipe and the data that its manifest names."""

from dataclasses import dataclass
from pathlib import Path

from medserve_proto.v1 import manifest_pb2 as pb
from medserve_training.data.splits import Images, Patients, fingerprint
from medserve_training.errors import UserError
from medserve_training.recipes.recipe import Recipe, load_recipe, recipe_names


@dataclass(frozen=True)
class Source:
    """A model file and the data that its manifest speaks of.

    Attributes:
        path: The ONNX file.
        data: Data spec.
        recipe: Packaged name or path of the recipe, for the split; by default the manifest's.
        data_dir: Where MedMNIST's files lie.
    """

    path: Path
    data: str
    recipe: str | None
    data_dir: Path


def recipe_of(source: Source, manifest: pb.Manifest) -> Recipe:
    """The recipe that a model was trained with, with the manifest's seed.

    Args:
        source: The model file, its data and, unless it is the manifest's, its recipe.
        manifest: The file's manifest.

    Raises:
        UserError: The recipe is not packaged and its file is not named.
    """
    recipe_name = source.recipe or manifest.training.recipe
    if recipe_name not in recipe_names() and not Path(recipe_name).is_file():
        raise UserError(
            f"{source.path} was trained with the recipe {recipe_name!r}; name that recipe's file with --recipe"
        )
    return load_recipe(recipe_name, [f"seed={manifest.training.seed}"], source.data)


def hold_to_training_data(manifest: pb.Manifest, train: Images | Patients) -> None:
    """Refuses a training split that is not the one the manifest names.

    Raises:
        UserError: It is another.
    """
    found = fingerprint(train)
    if found != manifest.training.data_sha256:
        raise UserError(
            f"the training split has the SHA-256 {found}, the manifest names {manifest.training.data_sha256}: either "
            "the data is another, or the recipe's split is; --recipe names the file that the model was trained with",
        )
