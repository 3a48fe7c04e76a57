"""The rate limiter: token buckets for each mesh and member, in memory or in Redis."""
