"""The base that all layers use and that imports none of them: errors, files, digests."""
