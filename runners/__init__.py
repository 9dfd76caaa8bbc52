"""Where a run happens: the command line, local workers, Ray, Dataflow, portable runners."""

if not __name__.startswith("tagmill."):
    raise ImportError("import tagmill.runners, not runners; run `pip install -e .` first")
