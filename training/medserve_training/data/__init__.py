"""Reads data sets, cuts them into splits and checks that they are enough to train on."""
