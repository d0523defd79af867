"""The local Kalshi: 15-minute crypto markets over REST and the signed socket. Order entry is not built and says so."""
