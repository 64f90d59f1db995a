"""Augmentation of whole batches: one method a file, all that is random drawn from (seed, epoch, sample)."""
