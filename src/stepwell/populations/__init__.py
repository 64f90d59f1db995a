"""Many models as one program: `train` takes members, each a recipe with its data, and says how each ended."""
