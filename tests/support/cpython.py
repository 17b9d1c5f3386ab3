"""CPython's own tests, for a Python that comes without them: those that Debian has for the same version.

Preloaded in task processes as well, where the functions of those tests have to be found.
"""

import sys
from pathlib import Path

import test

#: Debian's package libpython3.N-testsuite.
DEBIANS = Path(f"/usr/lib/python{sys.version_info[0]}.{sys.version_info[1]}/test")
_OWN = Path(test.__path__[0])

if not any((_OWN / name).exists() for name in ("test_concurrent_futures", "test_concurrent_futures.py")):
    test.__path__.append(str(DEBIANS))
