"""Reads finished runs: examples, report tables, and scores against a truth."""
