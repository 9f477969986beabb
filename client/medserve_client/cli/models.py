"""`medserve models`, and the default model when --model is not given."""

from medserve_client.cli import terminal
from medserve_client.cli.exit_codes import ExitCode, UsageError
from medserve_client.client import Client
from medserve_client.results import ModelDescription, Task


def list_models(client: Client) -> ExitCode:
    """Prints a table of every version of every model."""
    table = terminal.table("Models", "Name", "Version", "Task", "Title", "Runs on", whole=["Name"])
    for model in client.models():
        runs_on = model.provider if model.ready else "not ready"
        values = (model.name, model.version, task_name(model.task), model.title, runs_on)
        table.add_row(*map(terminal.cell, values))
    terminal.output().print(table)
    return ExitCode.OK


def choose_model(client: Client, task: Task, model: str | None, version: str) -> ModelDescription:
    """Describes the model for a task: the named one, or the only one on the server.

    Raises:
        UsageError: the model is for another task, or none was named and the server has none or several.
    """
    name = model or _only_model(client, task)
    description = client.describe(name, version)
    if description.manifest.WhichOneof("task") != task.name.lower():
        raise UsageError(f"{name} is not a model for {task_name(task)}")
    return description


def _only_model(client: Client, task: Task) -> str:
    names = sorted({model.name for model in client.models() if model.task == task and model.ready})
    if not names:
        raise UsageError(f"the server has no model for {task_name(task)} that is ready")
    if len(names) > 1:
        raise UsageError(
            f"the server has several models for {task_name(task)}: {', '.join(names)}; choose one with --model"
        )
    return names[0]


def task_name(task: Task) -> str:
    """Returns the display name of a task; empty for a model without a manifest."""
    return "" if task == Task.UNSPECIFIED else task.name.lower().replace("_", " ")
