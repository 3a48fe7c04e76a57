"""Settings: keys with rules, and their values from flags, environment, file and defaults.

A class of settings is a dataclass whose fields are made by `setting`. It is the only place that knows its
keys: config.toml, broker.toml and hooks.toml, their options and docs/configuration.md all follow from it.
"""
