"""Binance spot candles: `types`, `fetcher` (REST) and `feed` (live)."""
