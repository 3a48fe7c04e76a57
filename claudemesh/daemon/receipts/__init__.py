"""Receipts: told to the senders of received messages, and taken from the recipients of this host's sends."""
