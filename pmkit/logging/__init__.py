"""Logs and trade files.

`paths` where files go; `logger` set-up, redaction, the daily log file; `csv_logger` the trade CSV; `limits` logs that
repeat. Below them: `redact`, `text`, `files` (one file per UTC day) and `writer` (the thread that writes).
"""
