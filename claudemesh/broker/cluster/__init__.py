"""Several brokers on one database: signals, leases, the sweep, and failover."""
