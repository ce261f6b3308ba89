"""Nothing that a test's check passes is kept in the home of whoever runs it."""

import os

os.environ["LAYER_BY_LAYER"] = ""
