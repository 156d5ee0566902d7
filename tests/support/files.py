"""Where the files of the tests, and of the project, are."""

from pathlib import Path

TESTS = Path(__file__).parent.parent
ROOT = TESTS.parent
DOCS = ROOT / "docs"
EXAMPLES = ROOT / "examples"
PAYLOADS = TESTS / "payloads"
KEY_FILE = TESTS / "vectors" / "throwaway-pkcs8.pem"
PUBLIC_KEY_FILE = TESTS / "vectors" / "throwaway-public.pem"
