"""Settings from `.env` and the environment: `pmkit.config.env`."""
