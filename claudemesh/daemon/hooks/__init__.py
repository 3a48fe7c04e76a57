"""The user's own programs, run on events: one manifest, one runner, nothing that outlives its run."""
