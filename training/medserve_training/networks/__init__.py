"""The networks: one file for each family, and what turns raw input into theirs and their output into probabilities."""
