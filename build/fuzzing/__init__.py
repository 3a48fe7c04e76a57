"""Fuzzing: bytes from outside against the promises of the parsers that read them (docs/fuzzing.md)."""
