"""A rule-driven stand-in for a language model that speaks the OpenAI chat completions API."""
