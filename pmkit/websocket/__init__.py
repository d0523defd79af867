"""Sockets that come back: `base` (BaseWebSocket) and `deadlines`, the one table of data deadlines."""
