"""The contracts of medserve as Python: generated from the .proto files beside this package by `make proto`."""
