"""The HTTP client that all outgoing requests use."""
