"""Where a model comes from: the recipe and the training data that its manifest names."""

from pathlib import Path

from medserve_proto.v1 import manifest_pb2 as pb
from medserve_training.data.splits import Images, Patients, fingerprint
from medserve_training.errors import UserError
from medserve_training.recipes.recipe import Recipe, load_recipe, recipe_names


def recipe_of(path: Path, manifest: pb.Manifest, data: str, recipe_name: str | None) -> Recipe:
    """The recipe that a model was trained with, with the manifest's seed.

    Args:
        path: The ONNX file, for messages.
        manifest: Its manifest.
        data: Data spec of the data the manifest speaks of.
        recipe_name: Packaged name or path of the recipe; by default the manifest's.

    Raises:
        UserError: The recipe is not packaged and its file is not named.
    """
    recipe_name = recipe_name or manifest.training.recipe
    if recipe_name not in recipe_names() and not Path(recipe_name).is_file():
        raise UserError(f"{path} was trained with the recipe {recipe_name!r}; name that recipe's file with --recipe")
    return load_recipe(recipe_name, [f"seed={manifest.training.seed}"], data)


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
