"""`python -m mhcvse_jax.build_tfds` by its earlier name."""

import sys

from mhcvse_jax.build_tfds import main

if __name__ == "__main__":
    sys.exit(main())
