"""Words and rules: vocabulary, caption parser, decisions, the shard contract. No torch, no Beam."""

if not __name__.startswith("tagmill."):
    raise ImportError("import tagmill.tag_system, not tag_system; run `pip install -e .` first")
