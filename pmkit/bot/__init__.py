"""The life cycle of a strategy: `base` (BaseBot) and `run`; `life`, `windows`, `own` and `ledger` are its parts."""
