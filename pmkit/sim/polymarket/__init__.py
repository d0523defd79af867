"""The local Polymarket: Gamma, the CLOB's public side and its market channel."""
