"""Loads data sets, splits them and checks that they are large enough to train on."""
