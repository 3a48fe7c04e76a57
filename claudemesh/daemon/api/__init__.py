"""The local HTTP API (daemon.md, Local API)."""

from claudemesh.daemon.api.app import build_api

__all__ = ["build_api"]
