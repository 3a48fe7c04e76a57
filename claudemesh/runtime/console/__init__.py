"""Parts of both consoles, the pages of a daemon and of a broker: admission of browsers, and common files."""
