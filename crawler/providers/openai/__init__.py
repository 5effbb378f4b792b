"""OpenAI-compatible servers, each by its name."""
