"""Tests compute on one thread: their tensors are small, and threads that wait for each other are slow."""

import os

import torch
from hypothesis import settings

torch.set_num_threads(1)

# How long an example takes says how busy the machine is, not whether the code is right.
settings.register_profile("stepwell", deadline=None)
settings.load_profile("stepwell")
os.environ["OMP_NUM_THREADS"] = "1"  # for the processes that tests start
