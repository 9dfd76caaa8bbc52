"""Makes vocabularies: the built-in one from open sources, and one from the official lists of RAM."""
