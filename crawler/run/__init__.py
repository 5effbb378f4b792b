"""One life of a run: the loop, the executor, recovery, and why it ends."""
