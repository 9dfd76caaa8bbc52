"""Plans and runs the stages: config, planning, running, fingerprints, reports."""

if not __name__.startswith("tagmill."):
    raise ImportError("import tagmill.pipeline, not pipeline; run `pip install -e .` first")
