"""An emulator of Vertex AI's prediction service on loopback, to try limits and failures with.

Rule: a real gRPC server with the real messages; it knows nothing of the crawler, and the crawler
nothing of it.
"""
