"""Nothing that a test's check passes is kept in the home of whoever runs it; two workers share two cores in peace."""

import os

os.environ |= {"LAYER_BY_LAYER": "", "OMP_NUM_THREADS": "1"}
