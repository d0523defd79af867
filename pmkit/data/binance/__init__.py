"""Binance spot candles: `types`, `fetcher` (REST), `history` (into CSV files, with bulk files) and `feed` (live)."""
