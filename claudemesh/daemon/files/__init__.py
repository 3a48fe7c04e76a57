"""Files: shared with members and fetched from them (docs/spec/daemon.md, Shared files)."""
