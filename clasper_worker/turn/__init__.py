"""The agent turn: its request and result, and how one is run."""
