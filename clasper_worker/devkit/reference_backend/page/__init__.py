"""The backend's page: a chat with an agent, and the user's data beside it, as it changes."""
