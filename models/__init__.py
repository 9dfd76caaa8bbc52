"""Nets behind small Protocols: taggers, localizers, embedders, captioners."""

if not __name__.startswith("tagmill."):
    raise ImportError("import tagmill.models, not models; run `pip install -e .` first")
