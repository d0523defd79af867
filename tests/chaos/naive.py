"""Naive variants."""

VARIANTS = {}


def play(variant, seed): ...
