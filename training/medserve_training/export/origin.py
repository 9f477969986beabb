"""Provenance of a model: the recipe and the data that its manifest names."""

from dataclasses import dataclass
from pathlib import Path

from medserve_proto.v1 import manifest_pb2 as pb
from medserve_training.errors import UserError
from medserve_training.recipes.recipe import Recipe, load_recipe, recipe_names


@dataclass(frozen=True)
class Source:
    """A model file and the data that its manifest names.

    Attributes:
        path: The ONNX file.
        data: Data spec.
        recipe: Name or path of the recipe, which defines the split; None for that of the manifest.
        data_dir: Folder of MedMNIST's files.
    """

    path: Path
    data: str
    recipe: str | None
    data_dir: Path


def recipe_of(source: Source, manifest: pb.Manifest) -> Recipe:
    """Loads the recipe with which a model was trained, with the seed of the manifest.

    Args:
        source: The model file, its data and, unless the manifest's is used, its recipe.
        manifest: The file's manifest.

    Raises:
        UserError: The recipe is not packaged, and its file was not specified.
    """
    recipe_name = source.recipe or manifest.training.recipe
    if recipe_name not in recipe_names() and not Path(recipe_name).is_file():
        raise UserError(
            f"{source.path} was trained with the recipe {recipe_name!r}; specify that recipe's file with --recipe"
        )
    return load_recipe(recipe_name, [f"seed={manifest.training.seed}"], source.data)


def verify_training_data(manifest: pb.Manifest, found: str) -> None:
    """Checks the fingerprint of a training split against the manifest.

    Raises:
        UserError: The fingerprints differ.
    """
    if found != manifest.training.data_sha256:
        raise UserError(
            f"the training split has the SHA-256 {found}, expected {manifest.training.data_sha256} as in the manifest: "
            "either the data differs, or the recipe's split; specify the recipe of the model with --recipe",
        )
