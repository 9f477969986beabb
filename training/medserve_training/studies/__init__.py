"""Runs over models and recipes: evaluation, repetition, tuning, cross-validation, the articles' result."""
