"""Upkeep: jobs, the audit log, clocks, and checks that run beside the traffic."""
