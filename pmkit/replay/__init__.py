"""Recordings played back. `session`: a recording of pmkit to a bot. `frames`: recordings of others (what a venue's
socket said, days of candles) through the library's feeds and books. Needs `pmkit[sim]`.
"""
