"""The chaos suite: whole bots on whole local venues under random faults. `python -m tests.chaos --help`."""
