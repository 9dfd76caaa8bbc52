"""RAM, RAM++ and Tag2Text: modules, their checkpoints, and the tagger and captioner made of them."""

if not __name__.startswith("tagmill."):
    raise ImportError("import tagmill.models.ram, not models.ram; run `pip install -e .` first")
