"""Writes a schema and a recipe for a user's own data, all or nothing."""

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from medserve_training.data.patient_data import load_cohort
from medserve_training.errors import UserError
from medserve_training.init.images import start_images
from medserve_training.init.outcome import Flags
from medserve_training.init.patients import start_patients
from medserve_training.recipes.recipe import load_recipe


def init(path: Path, flags: Flags) -> list[Path]:
    """Writes a recipe next to a user's data, and for a CSV file also a schema.

    FILE.csv gets FILE.toml (the schema) and FILE.recipe.toml; FOLDER gets FOLDER.recipe.toml. The table is then loaded
    with them as by `fit`, to validate them.

    Args:
        path: A CSV file of patients, or a folder with one folder of images for each class.
        flags: The user's options about the outcome of patients.

    Returns:
        The written files, the recipe last.

    Raises:
        UserError: An output file exists, or something cannot be read or guessed; no file is left behind.
    """
    if path.is_dir():
        if flags != Flags():
            raise UserError(f"{path} is a folder; --time, --event, --event-value and --time-unit require a CSV file")
        folder = path.resolve()
        recipe = folder.with_name(f"{folder.name}.recipe.toml")
        _refuse_existing(recipe)
        _write({recipe: start_images(path)})
        return [recipe]
    if not path.is_file():
        raise UserError(
            f"{path} is missing; expected a CSV file of patients, or a folder with one folder for each class"
        )
    schema, recipe = path.with_suffix(".toml"), path.with_suffix(".recipe.toml")
    _refuse_existing(schema, recipe)
    schema_text, recipe_text = start_patients(path, flags)
    _write({schema: schema_text, recipe: recipe_text})
    return [schema, recipe]


def _refuse_existing(*paths: Path) -> None:
    for path in paths:
        if path.exists():
            raise UserError(f"{path} already exists; rename or remove it to start over")


def _write(texts: Mapping[Path, str]) -> None:
    """Writes new files and validates them by loading them; on any failure, removes them all."""
    with ExitStack() as undo:
        for path, text in texts.items():
            try:
                with path.open("x", encoding="utf-8", newline="\n") as file:
                    undo.callback(path.unlink)
                    file.write(text)
            except OSError as error:
                raise UserError(f"{path} cannot be written: {error.strerror}") from error
        *schemas, recipe = texts
        loaded = load_recipe(str(recipe))
        if schemas:
            load_cohort(loaded)
        undo.pop_all()
