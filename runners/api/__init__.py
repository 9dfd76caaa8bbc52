"""What the package tagmill offers to Python: a thin layer over the pipeline, its studies and the commands."""
