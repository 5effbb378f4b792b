"""Vertex AI over gRPC: Gemini, PaLM-shaped prediction, deployed endpoints."""
