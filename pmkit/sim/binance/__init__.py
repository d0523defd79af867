"""The local Binance: klines over REST and sockets, from the prices of the World."""
