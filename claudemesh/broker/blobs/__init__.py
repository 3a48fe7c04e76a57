"""Blobs: tickets, uploads that resume, and downloads (docs/spec/broker.md, Blobs)."""
