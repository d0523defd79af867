"""Real recordings against pmkit's rules: `python -m tests.real_data FILE...`, see `__main__`."""
