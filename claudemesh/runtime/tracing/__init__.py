"""Spans of traces, and their export to a collector of OpenTelemetry by OTLP/HTTP in JSON."""
