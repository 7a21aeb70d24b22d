"""Choose the skills and memory that fit a message: by words, by meaning."""
