"""The command line `medserve-train`: one module for each subcommand.

Subcommands import their dependencies when they run, so that `verify` never loads PyTorch and --help is fast.
"""
