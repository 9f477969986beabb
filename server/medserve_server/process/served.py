"""Collects the models of a server for its startup message."""

from medserve_server.process.lifecycle import Server
from medserve_server.process.startup import ServedModel


def served_models(server: Server) -> list[ServedModel]:
    """Returns the models that a server serves."""
    return [
        ServedModel(
            model.name,
            model.version,
            model.manifest.title if model.manifest else "",
            model.session.provider,
            model.runs,
            model.session.threads,
            model.max_batch_rows,
        )
        for model in server.models
    ]
