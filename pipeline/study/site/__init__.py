"""The audit site: what a run made and why, as pages that open from a folder without server or network."""
