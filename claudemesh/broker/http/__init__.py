"""The HTTP side of a broker: joining, the admin API, health, and the route table."""
