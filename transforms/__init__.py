"""Stages of the data engine, one file a stage, in the order of pipeline/stages.py."""

if not __name__.startswith("tagmill."):
    raise ImportError("import tagmill.transforms, not transforms; run `pip install -e .` first")
