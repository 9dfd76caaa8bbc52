"""The ground floor that all layers may use, and that imports nothing of theirs: errors, files, digests."""
