"""`python -m worker`: one worker, configured by HOOKMIRROR_CONFIG and the environment."""

import sys

from common import service
from worker import program

if __name__ == "__main__":
    sys.exit(service.main(None, program.run))
