"""The workspace's files and the system prompt built from them."""
