"""The life cycle of a strategy: `base` (BaseBot) and `run`."""
