"""Makes the generator of deploy/siem and the bench's made-up days importable."""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "deploy" / "siem"), str(ROOT / "bench")]
