"""The pages of `tagmill diff`: what changed between two sides, with pictures."""
