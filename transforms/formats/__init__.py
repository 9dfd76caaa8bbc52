"""Source formats, one file a format."""
