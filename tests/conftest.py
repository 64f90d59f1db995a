"""Tests compute on one thread: their tensors are small, and threads that wait for each other are slow."""

import os

import torch

torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"  # for the processes that tests start
