"""Starts a schema and a survival recipe from a CSV file of patients."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from medserve_training.errors import UserError
from medserve_training.init.covariates import Guess, guess_covariate
from medserve_training.init.horizons import Plan, plan_horizons
from medserve_training.init.outcome import Flags, Outcome, find_outcome
from medserve_training.init.table import Table, read_cells
from medserve_training.init.toml_text import comment, recipe_name, table, toml
from medserve_training.schema import Category


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
    cells = read_cells(path)
    try:
        outcome = find_outcome(cells, flags)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    taken = (outcome.value.time_column, outcome.value.event_column)
    guesses = {name: guess_covariate(name, column) for name, column in cells.columns.items() if name not in taken}
    covariates = [guess for guess in guesses.values() if isinstance(guess, Guess)]
    left_out = {name: reason for name, reason in guesses.items() if isinstance(reason, str)}
    if not covariates:
        reasons = "; ".join(f"{toml(name)} {reason}" for name, reason in left_out.items())
        raise UserError(f"{path}: no column is left as a covariate{f': {reasons}' if reasons else ''}")
    return _schema(path, outcome, covariates, left_out), _recipe(path, cells, outcome)


def _schema(path: Path, outcome: Outcome, covariates: Sequence[Guess], left_out: Mapping[str, str]) -> str:
    head = [comment(f"What the columns of {toml(path.name)} are, by medserve-train init. Check what is marked as a guess.")]
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
        key: int(value) if isinstance(value, float) and value.is_integer() else value for key, value in vars(feature).items()
    }


def _recipe(path: Path, cells: Table, outcome: Outcome) -> str:
    plan = plan_horizons(outcome.longest, outcome.value.time_unit)
    event, name = outcome.value.description, recipe_name(path.stem)
    described = f"{cells.rows} patients, {outcome.events} with the event {event!r}"
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
        "description": f"Five small convolutional networks that give the risk of {event} over time, trained on {path.name}.",
        "intended_use": "Research. Not a medical device, not for treatment decisions.",
        "license": "NOASSERTION",
    }
    parts = [
        comment(f"Trains a survival model on {toml(path.name)}, by medserve-train init. Check what is marked as a guess.")
        + "\n"
        + table("", head, {"name": "the name of the file. The model is written to models/NAME/1 and served under it."}),
        table("[data]", data, {"description": "say where the data is from, its version and its license."}),
        table("[network]", network, {"encoding": _ENCODING_NOTE}),
        table("[training]", training, {"epochs": _EPOCHS_NOTE}),
        table("[split]", {"validation": 0.15, "test": 0.15}),
        _task(plan, outcome),
        table("[manifest]", texts, _TEXT_NOTES),
    ]
    return "\n".join(parts)


def _task(plan: Plan, outcome: Outcome) -> str:
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
        "interval": f"the length of a step of the survival curve in {unit}; `intervals` steps reach the last horizon.",
        "horizons": f"a tenth of the patients are followed for more than {outcome.longest:g} {unit}. Put those at which a "
        f"risk helps, in {unit}, as multiples of the interval.",
        "reference_horizon": "the last one. Risk groups and concordance go by the risk at this one.",
        "risk_groups": "three groups of the same size, cut at quantiles of the training split's risk.",
    }
    return table("[task]", task, notes)


_ENCODING_NOTE = (
    "learned from the data. Where you know how the risk goes with each number, name the transforms in the schema and put "
    '"clinical".'
)
_EPOCHS_NOTE = (
    "these settings do well on 686 patients with 8 covariates. medserve-train tune looks for better ones by the loss on "
    "validation."
)
_TEXT_NOTES = {
    "title": "the event's name. What the model says, in a few words.",
    "intended_use": "say for whom the model is, and for whom not.",
    "license": 'of the model file, as an SPDX identifier, e.g. "CC-BY-4.0"; NOASSERTION says nothing.',
}
