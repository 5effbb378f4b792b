"""The file with all that lies beside it: open, upgrade, lock, one transaction in one hop."""
