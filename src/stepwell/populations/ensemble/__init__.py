"""Several trained networks served as one: independent members, folds, snapshots, averages and soups."""
