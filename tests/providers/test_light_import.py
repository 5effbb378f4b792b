"""The messages are imported without the thirty services beside them, and nobody sees a difference;
tried against the library that is installed, each time in a process of its own."""

import subprocess
import sys

import pytest

from tests.conftest import DAY, LONG

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


FORMS = (
    "from google.cloud.aiplatform_v1 import GenerateContentRequest as found",
    "from google.cloud.aiplatform_v1 import *; found = GenerateContentRequest",
    "from google.cloud import aiplatform_v1; found = aiplatform_v1.GenerateContentRequest",
    "from google.cloud.aiplatform_v1.types import GenerateContentRequest as found",
    "import vertexai\nfrom google.cloud.aiplatform_v1.types.content import Candidate as found",
    "import google.cloud.aiplatform_v1.types as t; found = t.content.GenerationConfig",
    "from google.cloud.aiplatform_v1.types import *; found = GenerateContentRequest",
)
SAME = "assert found.pb() is getattr(messages, found.__name__)\n"
NAMES = "import google.cloud.aiplatform_v1 as found; print(sorted(found.__all__))\n"


@pytest.mark.parametrize("later", FORMS if LONG else FORMS[DAY % 3 :: 3])
def test_who_imports_the_library_later_gets_the_same_classes(later):
    python(f"{MESSAGES}{later}\n{SAME}")


def test_the_library_is_whole_after_it_and_before():
    light = [form for form in FORMS if "vertexai" not in form]
    before = NAMES + MESSAGES + "".join(f"{form}\n{SAME}" for form in light)
    assert python(MESSAGES + NAMES) == python(before)


def test_a_package_that_is_not_there_is_told():
    code = "from crawler.providers.vertex.light_import import import_from\n"
    told = (
        "try: import_from('google.no_such.types', 'x')\nexcept ModuleNotFoundError: print('told')"
    )
    assert python(code + told) == "told\n"
