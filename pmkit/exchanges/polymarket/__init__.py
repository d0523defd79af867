"""Polymarket: messages, types, fees, orders, auth, refusals (wire); market_data, orderbook_ws, market_finder, client,
user_ws, reference_ws (clients), each beside the files it is made of. No redeem yet.
"""
