"""What asks a finished run: its examples, its tables, how right it is."""
