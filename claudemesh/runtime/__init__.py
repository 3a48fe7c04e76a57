"""What both processes need from the machine: clock, files, SQLite, tasks, HTTP, logs. Knows no mesh."""
