"""Replay: recorded sessions, served again on loopback with the bytes of the recording."""
