"""Why a model answers as it does, and how far the answer can be trusted."""
