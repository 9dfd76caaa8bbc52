"""The embedded default: a drawn world with a known truth, and tiny models that know it.

The world exists so that a first run works offline and so that the engine's effect can be measured. What its
models know are its drawings; they are no models for photographs.
"""
