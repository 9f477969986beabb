"""The model card: what a user has to know about a model before using it, written next to it by `evaluate`."""

from medserve_training.card.write import write_card

__all__ = ["write_card"]
