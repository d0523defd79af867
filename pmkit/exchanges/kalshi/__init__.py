"""Kalshi: messages, types, auth, fees (wire); market_data, orderbook_ws, market_finder (clients)."""
