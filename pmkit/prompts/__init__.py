"""Questions on the terminal: `pmkit.prompts.inquirer`."""
