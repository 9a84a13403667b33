"""What the tests of other registries have in common; their real one is Debian's docker-registry."""

from __future__ import annotations

import pytest

from wan22_testing.oci_registry import OciRegistryProcess

MISSING = ", ".join(OciRegistryProcess.missing_programs())
needs_programs = pytest.mark.skipif(bool(MISSING), reason=f"not installed: {MISSING}; apt-get install has them")
