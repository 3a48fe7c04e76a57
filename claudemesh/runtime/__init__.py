"""Machine layer of both processes: clocks, files, SQLite, tasks, HTTP, logs. It knows no mesh."""
