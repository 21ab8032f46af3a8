"""`python -m mhcvse_jax.check_data` by its earlier name."""

import sys

from mhcvse_jax.check_data import main

if __name__ == "__main__":
    sys.exit(main())
