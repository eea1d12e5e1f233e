"""`python -m receiver`: the receiver alone, configured by HOOKMIRROR_CONFIG and the environment."""

import sys

from common import service
from receiver import program

if __name__ == "__main__":
    sys.exit(service.main(None, program.run))
