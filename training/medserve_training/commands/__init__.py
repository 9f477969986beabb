"""The command `medserve-train`: a module for each of its commands.

They import what they need when they run: `verify` never loads PyTorch, and --help answers at once.
"""
