"""What holds for every test."""

import os

# Tests run beside each other. Before NumPy and PyTorch are imported: threads that wait for each other's share of a sum
# do so actively, and where processors are fewer than threads, most of the time is spent on that.
os.environ["OMP_NUM_THREADS"] = "1"
