"""The model card: what a reader has to know about a model file before using it, written beside it by `evaluate`."""

from medserve_training.card.write import write_card

__all__ = ["write_card"]
