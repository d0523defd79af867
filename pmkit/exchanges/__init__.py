"""Venues behind one interface: `types`, `orderbook` and `base`, then a folder per venue and `paper`, the dry-run."""
