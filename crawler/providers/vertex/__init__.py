"""Vertex AI over gRPC: Gemini, PaLM-shaped prediction, deployed endpoints.

Rule: gRPC's own log is off unless somebody asks for it, before gRPC is imported: standard error has
lines of JSON.
"""

import os

os.environ.setdefault("GRPC_VERBOSITY", "NONE")
