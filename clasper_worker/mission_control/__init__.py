"""The customer's backend (Mission Control), contract v1."""
