"""The embedded default, `data`: scenes of a drawn world with a known truth, and tiny models that know it.

It exists so that a first run works offline and so that the engine's effect can be measured. What its models
know are its drawings; they are not models for photographs. What made it is tests/support/demo_recipe in the
repository: nobody who uses the engine needs that.
"""
