"""The local venues: Binance, Polymarket and Kalshi on loopback, with their real paths and payloads.

Nothing here shares a rule with the clients: a mistake made twice would agree with itself.
"""
