"""Training on shards: datasets, sample order, targets, views of images, and the loader made of them."""

if not __name__.startswith("tagmill."):
    raise ImportError("import tagmill.models.training, not models.training; run `pip install -e .` first")
