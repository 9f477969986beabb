"""What a server says at its start about the models that it serves."""

from medserve_server.lifecycle import Server
from medserve_server.workers import Row


def served_models(server: Server) -> list[Row]:
    """Says what is served, a row a model."""
    rows = []
    for model in server.models:
        session = model.session
        cores = f", {model.runs} x {session.threads} thread{'s' * (session.threads > 1)}"
        rows.append(
            (
                model.name,
                model.version,
                model.manifest.title if model.manifest else "(no manifest: Open Inference Protocol only)",
                f"{session.provider}{cores if session.provider == 'cpu' else ''}",
                f"up to {model.max_batch_rows}" if model.max_batch_rows else "no",
            )
        )
    return rows
