"""Studies of models and recipes: evaluation, repetition, tuning, cross-validation, the articles' risk result."""
