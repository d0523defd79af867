"""The local Kalshi: 15-minute crypto markets over REST and the signed socket, with order entry and portfolio."""
