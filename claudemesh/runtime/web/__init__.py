"""HTTP for both servers: listening, routes, requests, replies and errors.

Modules, lowest first: `asgi` (types), `replies`, `errors`, `bodies`, `query`, `routes` (the table),
`dispatch` (the ASGI app of a table), `paging`, `request_metrics`, `browser` (checks against web pages),
`sockets`, `heads` and `server` (uvicorn under guard).
"""
