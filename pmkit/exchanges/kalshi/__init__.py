"""Kalshi: messages, types, fees, orders, auth, refusals (wire); market_data, orderbook_ws, market_finder, client,
user_ws (clients), each beside the files it is made of.
"""
