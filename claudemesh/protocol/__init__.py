"""Protocol between daemon and broker: values in, values out, no I/O (docs/spec/protocol.md, Frames)."""
