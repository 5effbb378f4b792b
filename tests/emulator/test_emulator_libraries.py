"""Google's own libraries, as they are but for the address, against the emulator: over TLS, with the
certificate that it has made."""

import os
import subprocess
import sys

from tests.emulating import emulator

BEGIN = """
import asyncio, sys, warnings
warnings.simplefilter("ignore")  # the library says that it is old
import vertexai
from google.auth.credentials import AnonymousCredentials
vertexai.init(project="p", location="us-central1", api_endpoint=sys.argv[1],
              credentials=AnonymousCredentials())
"""
NOTEBOOK = """
from vertexai.generative_models import GenerativeModel
from vertexai.language_models import TextGenerationModel
model = TextGenerationModel.from_pretrained("text-bison@002")
prompt = "Give me a mnemonic and a definition of the word aberrant."
print(model.predict(prompt, temperature=0.2, max_output_tokens=256).text)
print("--")
pieces = list(model.predict_streaming(prompt, temperature=0.2, max_output_tokens=256))
assert len(pieces) > 1
print("".join(piece.text for piece in pieces))
print("--")
print(asyncio.run(model.predict_async(prompt, temperature=0.2, max_output_tokens=256)).text)
"""
TOKENS = """
from vertexai.generative_models import GenerativeModel
model = GenerativeModel("gemini-2.5-flash")
print(model.count_tokens("abcdefgh").total_tokens)
print(model.generate_content("Define aberrant.").text)
"""
GAPIC = """
from google.cloud.aiplatform_v1 import LlmUtilityServiceClient, PredictionServiceClient
options = {"credentials": AnonymousCredentials(), "client_options": {"api_endpoint": sys.argv[1]}}
client = PredictionServiceClient(**options)
contents = [{"role": "user", "parts": [{"text": "Define aberrant."}]}]
model = "projects/p/locations/l/publishers/google/models/m"
tokens = {"endpoint": model, "contents": contents}
print(LlmUtilityServiceClient(**options).count_tokens(request=tokens).total_tokens)
print(client.generate_content(model=model, contents=contents).candidates[0].content.parts[0].text)
"""
GENAI = """
from google import genai
from google.genai import errors, types
from google.oauth2.credentials import Credentials
at = types.HttpOptions(base_url=sys.argv[2])
cloud = {"vertexai": True, "project": "p", "location": "l", "credentials": Credentials(token="t")}
for how in ({"api_key": "k"}, cloud):
    client = genai.Client(http_options=at, **how)
    models = client.models
    asked = {"model": "gemini-2.5-flash", "contents": "Define aberrant."}
    pieces = list(models.generate_content_stream(**asked))
    assert "".join(piece.text for piece in pieces) == models.generate_content(**asked).text
    assert models.count_tokens(**asked | {"contents": "abcdefgh"}).total_tokens == 2
    try:
        models.generate_content(**asked | {"contents": '"busy"'})
    except errors.APIError as error:
        print(error.code, error.status)
print(models.generate_content(**asked).text)
"""
ANSWER = (
    "[emulated] Definition: markedly different from an accepted norm\n"
    "Memory sentence: Remember what is aberrant as markedly different from an accepted norm.\n"
)


def test_the_libraries_of_google_are_answered(tmp_path):
    """All of them in one process: three seconds of CPU go into their imports."""
    roots = tmp_path / "roots.pem"
    busy = "busy=resource_exhausted"
    with emulator(tls=roots, http_port=0, word_fault=busy) as emulated:
        address = emulated.endpoint.replace("127.0.0.1", "localhost")
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                BEGIN + NOTEBOOK + TOKENS + GAPIC + GENAI,
                address,
                emulated.http,
            ],
            env={**os.environ, "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH": str(roots)},
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert done.returncode == 0, done.stderr[-2000:]
    busy = "429 RESOURCE_EXHAUSTED\n"
    three = f"{ANSWER}--\n{ANSWER}--\n{ANSWER}"
    assert done.stdout == f"{three}2\n{ANSWER}4\n{ANSWER}{busy}{busy}{ANSWER}"
