"""Python stubs of medserve's APIs, generated from the .proto files next to this package by `make proto`."""
