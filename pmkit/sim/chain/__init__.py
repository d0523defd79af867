"""A chain in this process: py-evm executes, a pool with the rules of Polygon, JSON-RPC on loopback."""
