"""Services of the operating system: units of systemd, property lists of launchd, and their installation."""
