"""The endpoints, one idea a file."""
