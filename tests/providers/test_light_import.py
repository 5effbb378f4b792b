"""The messages are imported without the thirty services beside them, and nobody sees a difference;
tried against the library that is installed, each time in a process of its own."""

import subprocess
import sys

import pytest

MESSAGES = "from crawler.providers.vertex import messages\n"
SERVICE = "from crawler.providers.vertex import service\n"


def python(code):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_what_an_emulator_is_asked_with_imports_no_client_and_no_credentials():
    modules = python(f"import sys\n{SERVICE}print(*sys.modules, sep='\\n')").splitlines()
    large = ("google.cloud.aiplatform_v1.services", "google.auth.transport", "requests", "aiohttp")
    assert "google.cloud.aiplatform_v1.types.prediction_service" in modules
    assert not [name for name in modules if name.startswith(large)]


@pytest.mark.parametrize(
    "later",
    [
        "from google.cloud.aiplatform_v1 import GenerateContentRequest as found",
        "from google.cloud.aiplatform_v1.types import GenerateContentRequest as found",
        "from google.cloud.aiplatform_v1 import *; found = GenerateContentRequest",
        "from google.cloud.aiplatform_v1.types import *; found = GenerateContentRequest",
        "from google.cloud import aiplatform_v1; found = aiplatform_v1.GenerateContentRequest",
        "import google.cloud.aiplatform_v1.types as t; found = t.content.GenerationConfig",
        "import vertexai\nfrom google.cloud.aiplatform_v1.types.content import Candidate as found",
    ],
)
def test_who_imports_the_library_later_gets_it_whole_with_the_same_classes(later):
    same = "assert found.pb() is getattr(messages, found.__name__)"
    python(f"{MESSAGES}{later}\n{same}")
    python(f"{later}\n{MESSAGES}{same}")


def test_the_library_is_whole_after_it():
    names = "import google.cloud.aiplatform_v1 as found; print(sorted(found.__all__))"
    assert python(MESSAGES + names) == python(names)


def test_a_package_that_is_not_there_is_told():
    code = "from crawler.providers.vertex.light_import import import_from\n"
    told = (
        "try: import_from('google.no_such.types', 'x')\nexcept ModuleNotFoundError: print('told')"
    )
    assert python(code + told) == "told\n"
