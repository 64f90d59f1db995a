"""Data sources, batches by index arithmetic, augmentation."""
