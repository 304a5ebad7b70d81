"""These need Flask, pydantic, redis, rq and psycopg2, as FlexMeasures has them; without them they are left out.

The environment that has them is described in tests/services.requirements.txt.
"""

import importlib.util

_NEEDED = ("flask", "pydantic", "redis", "rq", "psycopg2")
collect_ignore_glob = [] if all(map(importlib.util.find_spec, _NEEDED)) else ["test_*.py"]
