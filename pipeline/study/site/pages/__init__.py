"""The pages of the audit site, one file each."""
