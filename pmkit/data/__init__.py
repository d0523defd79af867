"""Candles: `storage` (CSV) and `binance`."""
