"""The recipe of `tagmill demo`: draws its world and trains its models; see models/demo/data/README.md."""
