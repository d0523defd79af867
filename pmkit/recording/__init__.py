"""Recordings: every public frame and request of a process, and what a dry-run decided, as lines of a file.

`lines` is the format, `recorder` the writer, `file` the compressed file. Played back by `pmkit.replay`.
"""
