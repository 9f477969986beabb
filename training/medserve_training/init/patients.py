"""Starts a schema and a survival recipe from a CSV file of patients."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from medserve_training.data.schema import Category
from medserve_training.errors import UserError
from medserve_training.init.covariates import Guess, guess_covariate
from medserve_training.init.horizons import HorizonPlan, plan_horizons
from medserve_training.init.outcome import Flags, Outcome, find_outcome
from medserve_training.init.table import read_columns
from medserve_training.init.toml_text import comment, recipe_name, table, toml


def start_patients(path: Path, flags: Flags) -> tuple[str, str]:
    """Guesses a schema and a recipe.

    Args:
        path: The CSV file.
        flags: What the user says about the outcome.

    Returns:
        The text of the schema and that of the recipe.

    Raises:
        UserError: The file is not a table of patients, or its outcome cannot be guessed.
    """
    columns = read_columns(path)
    try:
        outcome = find_outcome(columns, flags)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    taken = (outcome.value.time_column, outcome.value.event_column)
    guesses = {name: guess_covariate(name, cells) for name, cells in columns.items() if name not in taken}
    covariates = [guess for guess in guesses.values() if isinstance(guess, Guess)]
    left_out = {name: reason for name, reason in guesses.items() if isinstance(reason, str)}
    if not covariates:
        reasons = "; ".join(f"{toml(name)} {reason}" for name, reason in left_out.items())
        raise UserError(f"{path}: no column is left as a covariate{f': {reasons}' if reasons else ''}")
    return _schema(path, outcome, covariates, left_out), _recipe(path, outcome)


def _schema(path: Path, outcome: Outcome, covariates: Sequence[Guess], left_out: Mapping[str, str]) -> str:
    head = [
        comment(f"What the columns of {toml(path.name)} are, by medserve-train init. Check what is marked as a guess.")
    ]
    if left_out:
        lines = [comment(f"guess: {toml(name)} is left out, for it {reason}.") for name, reason in left_out.items()]
        head += ["", *lines, table("", {"ignored_columns": list(left_out)}).rstrip("\n")]
    parts = ["\n".join(head) + "\n", table("[outcome]", _values(outcome.value), outcome.notes)]
    parts += [_feature(guess) for guess in covariates]
    return "\n".join(parts)


def _feature(guess: Guess) -> str:
    values = _values(guess.feature)
    values.pop("transforms", None)
    if isinstance(guess.feature, Category):
        # So that the two lists stand below each other.
        values["required"] = values.pop("required")
    return table("[[features]]", values, guess.notes)


def _values(feature: object) -> dict[str, object]:
    return {
        key: int(value) if isinstance(value, float) and value.is_integer() else value
        for key, value in vars(feature).items()
    }


def _recipe(path: Path, outcome: Outcome) -> str:
    plan = plan_horizons(outcome.longest, outcome.value.time_unit)
    event, name = outcome.value.description, recipe_name(path.stem)
    described = f"{len(outcome.times)} patients, {outcome.events} with the event {event!r}"
    head = {"name": name, "seed": 1}
    data = {"spec": f"csv:{path}", "description": f"{path.name}, {described}"}
    network = {
        "name": "projection-risk-cnn",
        "encoding": "piecewise-linear",
        "channels": 16,
        "positions": 8,
        "dropout": 0.4,
        "effect": "fading",
    }
    training = {
        "epochs": 12,
        "batch_size": 64,
        "learning_rate": 1e-3,
        "loss": "logistic-hazard",
        "optimizer": "adamw",
        "weight_decay": 1.0,
        "members": 5,
    }
    texts = {
        "title": f"Risk of {event}",
        "description": f"Gives the risk of {event} by small convolutional networks, trained on {path.name}.",
        "intended_use": "Research. Not a medical device, not for treatment decisions.",
        "license": "NOASSERTION",
    }
    parts = [
        comment(
            f"Trains a survival model on {toml(path.name)}, by medserve-train init. Check what is marked as a guess."
        )
        + "\n"
        + table("", head, {"name": "the file's name. The model is written to models/NAME/1 and served as NAME."}),
        table(
            "[data]",
            data,
            {"description": "the file's name. Say where the data comes from, its version and its license."},
        ),
        table("[network]", network, {"encoding": _ENCODING_NOTE}),
        table("[training]", training, {"epochs": _EPOCHS_NOTE}),
        table("[split]", {"validation": 0.15, "test": 0.15}),
        _task(plan, outcome),
        table("[manifest]", texts, _TEXT_NOTES),
    ]
    return "\n".join(parts)


def _task(plan: HorizonPlan, outcome: Outcome) -> str:
    horizons = [{"label": horizon.label, "time": horizon.time} for horizon in plan.horizons]
    task = {
        "kind": "survival",
        "interval": plan.interval,
        "intervals": plan.intervals,
        "horizons": horizons,
        "reference_horizon": horizons[-1]["label"],
        "risk_groups": ["low", "intermediate", "high"],
    }
    unit = outcome.value.time_unit
    notes = {
        "interval": f"the step of the survival curve, in {unit}; `intervals` of them reach the last horizon.",
        "horizons": f"a tenth of the patients were followed for longer than {outcome.longest:g} {unit}. Set the "
        f"horizons to times at which a risk is of use, in {unit}, each a multiple of the interval.",
        "reference_horizon": "the last one. Risk groups and the concordance index go by the risk at this horizon.",
        "risk_groups": "three groups of the same size, cut at quantiles of the training split's risk.",
    }
    return table("[task]", task, notes)


_ENCODING_NOTE = (
    "learned from the data. If the shape of each number's effect is known, name the transforms in the schema and set "
    '"clinical" here.'
)
_EPOCHS_NOTE = (
    "settings that work for 686 patients with 8 covariates; `medserve-train tune` searches for better ones by the loss "
    "on validation."
)
_TEXT_NOTES = {
    "title": "the event's name. Set it to what the model predicts, and for whom.",
    "intended_use": "unknown. Say whom the model is for, and whom it is not for.",
    "license": 'unknown. Set it to the SPDX identifier of the model file\'s license, e.g. "CC-BY-4.0".',
}
