"""The dry-run: an exchange on real books that has no way to trade."""
